/* The finish where the units are the rows of the sums and the samples their lanes. */

/* Bias, maximum and index over the pieces of up to LANES units and samples, transposed on the way to y and argmax. */
static ALWAYS_INLINE void finish_block(const struct REAL(finish_units) * f, int64_t unit, int64_t units, int64_t sample,
                                       int64_t samples) {
  const int64_t pieces = f->pieces, stride = f->vectors * LANES, bias_step = f->bias != NULL;
  const real zero = 0, *bias = f->bias ? f->bias + unit * pieces : &zero;
  const real *sums = f->sums + unit * pieces * stride + sample;
  real best[LANES * LANES], index[LANES * LANES], turned[LANES * LANES];
  for (int64_t i = 0; i < units; i++, sums += pieces * stride, bias += pieces * bias_step) {
    vec its_index;
    vec_store(best + i * LANES, take_largest(pieces, sums, stride, bias, bias_step, 1, &its_index));
    vec_store(index + i * LANES, its_index);
  }
  for (int64_t i = units * LANES; i < LANES * LANES; i++) best[i] = index[i] = 0;
  real *y = f->y + sample * f->y_stride + unit;
  if (units == LANES && samples == LANES) {
    transpose_block(best, LANES, y, f->y_stride);
  } else {
    transpose_block(best, LANES, turned, LANES);
    for (int64_t i = 0; i < samples; i++) store_columns(y + i * f->y_stride, vec_load(turned + i * LANES), units);
  }
  if (!f->argmax) return;
  transpose_block(index, LANES, turned, LANES);
  uint8_t *argmax = f->argmax + sample * f->y_stride + unit;
  for (int64_t i = 0; i < samples; i++) store_bytes(argmax + i * f->y_stride, vec_load(turned + i * LANES), units);
}

static void finish_units(const struct REAL(finish_units) * f) {
  for (int64_t unit = 0; unit < f->units; unit += LANES)
    for (int64_t sample = 0; sample < f->samples; sample += LANES) {
      int64_t units = f->units - unit, samples = f->samples - sample < LANES ? f->samples - sample : LANES;
      if (units >= LANES)
        finish_block(f, unit, LANES, sample, samples);
      else
        finish_block(f, unit, units, sample, samples);
    }
}
