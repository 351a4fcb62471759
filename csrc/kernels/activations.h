/* Activations over arrays: those of straight pieces here, in lanes of `real`; most of the others of floats in
 * logistic.inc.h; the rest in smooth.inc.h, whose float functions the float64 file of an ISA holds, because they
 * compute in doubles. */

/* ---- lane by lane; slope is a vector, for the activations that have one */

static ALWAYS_INLINE vec linear_lanes(vec z, vec slope) {
  (void)slope;
  return z;
}

static ALWAYS_INLINE vec relu_lanes(vec z, vec slope) {
  (void)slope;
  return vec_max(vec_set1(0), z); /* z where it is NaN */
}

static ALWAYS_INLINE vec leaky_lanes(vec z, vec slope) {
  return vec_select(mask_gt(z, vec_set1(0)), z, vec_mul(z, slope));
}

static ALWAYS_INLINE vec linear_grad(vec grad_y, vec y, vec slope) {
  (void)y, (void)slope;
  return grad_y;
}

static ALWAYS_INLINE vec relu_grad(vec grad_y, vec y, vec slope) {
  (void)slope;
  return vec_select(mask_le(y, vec_set1(0)), vec_set1(0), grad_y); /* a NaN of y lets the gradient through */
}

static ALWAYS_INLINE vec leaky_grad(vec grad_y, vec z, vec slope) {
  return vec_select(mask_gt(z, vec_set1(0)), grad_y, vec_mul(grad_y, slope));
}

static ALWAYS_INLINE vec sigmoid_grad(vec grad_y, vec y, vec slope) {
  (void)slope;
  return vec_mul(grad_y, vec_mul(y, vec_sub(vec_set1(1), y)));
}

static ALWAYS_INLINE vec tanh_grad(vec grad_y, vec y, vec slope) {
  (void)slope;
  return vec_mul(grad_y, vec_mul(vec_sub(vec_set1(1), y), vec_add(vec_set1(1), y)));
}

/* ---- over arrays of n; slope (n), or one for all where slope_step is 0 */

/* An array read in order.  Where a vector is a whole cache line, a load that begins elsewhere touches two: so lines are
 * loaded, each once, and joined.  The backward of tanh over 65536 elements took 5.3 to 6.0 us with loads across lines
 * and takes 3.2 to 3.5, as with aligned arrays (Zen 5, AVX-512, in L2). */
struct stream {
  const real *next;
  vec line; /* the one before `next` */
  int first;
};

/* Starts at p.  A vector before p and one behind what is taken have to be inside the array, since whole lines are read.
 */
static ALWAYS_INLINE struct stream stream_at(const real *p) {
#ifdef FAST_JOIN
  int first = (int)((uintptr_t)p % sizeof(vec) / sizeof(real));
  const real *line = p - first;
  return (struct stream){.next = line + LANES, .line = vec_load(line), .first = first};
#else
  return (struct stream){.next = p};
#endif
}

static ALWAYS_INLINE vec stream_next(struct stream *s) {
  vec line = vec_load(s->next);
  s->next += LANES;
#ifdef FAST_JOIN
  vec joined = vec_join(s->line, line, s->first);
  s->line = line;
  return joined;
#else
  return line;
#endif
}

static ALWAYS_INLINE vec load_slope(const real *slope, int64_t slope_step, int64_t i) {
  return slope_step ? vec_load(slope + i) : vec_set1(*slope);
}

static ALWAYS_INLINE vec load_slope_rest(const real *slope, int64_t slope_step, int64_t i, int64_t n) {
  return slope_step ? load_rest(slope + i, n) : vec_set1(*slope);
}

/* y = f(z); y may be z */
static ALWAYS_INLINE void map_lanes(vec (*f)(vec z, vec slope), const real *slope, int64_t slope_step, const real *z,
                                    real *y, int64_t n) {
  int64_t i = 0;
  if (n >= 3 * LANES) {
    vec_store(y, f(vec_load(z), load_slope(slope, slope_step, 0)));
    struct stream rest = stream_at(z + LANES);
    for (i = LANES; i + 2 * LANES <= n; i += LANES)
      vec_store(y + i, f(stream_next(&rest), load_slope(slope, slope_step, i)));
  }
  for (; i + LANES <= n; i += LANES) vec_store(y + i, f(vec_load(z + i), load_slope(slope, slope_step, i)));
  if (i < n) store_rest(y + i, f(load_rest(z + i, n - i), load_slope_rest(slope, slope_step, i, n - i)), n - i);
}

/* grad_z = f(grad_y, saved); grad_z may be grad_y or saved */
static ALWAYS_INLINE void map_grad(vec (*f)(vec grad_y, vec saved, vec slope), const real *slope, int64_t slope_step,
                                   const real *grad_y, const real *saved, real *grad_z, int64_t n) {
  int64_t i = 0;
  if (n >= 3 * LANES) {
    vec_store(grad_z, f(vec_load(grad_y), vec_load(saved), load_slope(slope, slope_step, 0)));
    struct stream grads = stream_at(grad_y + LANES), saves = stream_at(saved + LANES);
    for (i = LANES; i + 2 * LANES <= n; i += LANES)
      vec_store(grad_z + i, f(stream_next(&grads), stream_next(&saves), load_slope(slope, slope_step, i)));
  }
  for (; i + LANES <= n; i += LANES)
    vec_store(grad_z + i, f(vec_load(grad_y + i), vec_load(saved + i), load_slope(slope, slope_step, i)));
  if (i < n) {
    vec grad = load_rest(grad_y + i, n - i), rest = load_rest(saved + i, n - i);
    store_rest(grad_z + i, f(grad, rest, load_slope_rest(slope, slope_step, i, n - i)), n - i);
  }
}

static void activation(int activation, double parameter, const void *slope, int64_t slope_step, const void *z, void *y,
                       int64_t n) {
  real one = (real)parameter;
  switch (activation) {
  case FA_LINEAR: map_lanes(linear_lanes, &one, 0, z, y, n); break;
  case FA_RELU: map_lanes(relu_lanes, &one, 0, z, y, n); break;
  case FA_LEAKY_RELU: map_lanes(leaky_lanes, &one, 0, z, y, n); break;
  case FA_PRELU:
    if (slope_step)
      map_lanes(leaky_lanes, slope, 1, z, y, n);
    else
      map_lanes(leaky_lanes, slope, 0, z, y, n);
    break;
#if REAL_BITS == 32
  case FA_ELU: REAL(map)(elu, parameter, z, y, n); break;
  case FA_SELU: REAL(map)(selu, parameter, z, y, n); break;
  case FA_GELU: REAL(map)(gelu, parameter, z, y, n); break;
  case FA_SILU: REAL(map)(silu, parameter, z, y, n); break;
#ifdef FAST_LOOKUP
  case FA_MISH: REAL(map)(mish, parameter, z, y, n); break;
#endif
  case FA_SOFTPLUS: REAL(map)(softplus, parameter, z, y, n); break;
  case FA_SIGMOID: REAL(map)(sigmoid, parameter, z, y, n); break;
  case FA_TANH: REAL(map)(tanh_wide, parameter, z, y, n); break;
#endif
  default: SMOOTH(activation, parameter, z, y, n); break;
  }
}

static void activation_backward(int activation, double parameter, const void *slope, int64_t slope_step,
                                const void *grad_y, const void *saved, void *grad_z, int64_t n) {
  real one = (real)parameter;
  switch (activation) {
  case FA_LINEAR: map_grad(linear_grad, &one, 0, grad_y, saved, grad_z, n); break;
  case FA_RELU: map_grad(relu_grad, &one, 0, grad_y, saved, grad_z, n); break;
  case FA_LEAKY_RELU: map_grad(leaky_grad, &one, 0, grad_y, saved, grad_z, n); break;
  case FA_PRELU:
    if (slope_step)
      map_grad(leaky_grad, slope, 1, grad_y, saved, grad_z, n);
    else
      map_grad(leaky_grad, slope, 0, grad_y, saved, grad_z, n);
    break;
  case FA_SIGMOID: map_grad(sigmoid_grad, &one, 0, grad_y, saved, grad_z, n); break;
  case FA_TANH: map_grad(tanh_grad, &one, 0, grad_y, saved, grad_z, n); break;
#if REAL_BITS == 32
  case FA_ELU: REAL(chain)(elu_slope, parameter, grad_y, saved, grad_z, n); break;
  case FA_SELU: REAL(chain)(selu_slope, parameter, grad_y, saved, grad_z, n); break;
  case FA_GELU: REAL(chain)(gelu_slope, parameter, grad_y, saved, grad_z, n); break;
  case FA_SILU: REAL(chain)(silu_slope, parameter, grad_y, saved, grad_z, n); break;
  case FA_SOFTPLUS: REAL(chain)(sigmoid, parameter, grad_y, saved, grad_z, n); break;
#endif
  default: SMOOTH_BACKWARD(activation, parameter, grad_y, saved, grad_z, n); break;
  }
}

/* sums[i] += z[i] > 0 ? 0 : grad_y[i] z[i], the terms of a PReLU's gradient */
static void add_slope_terms(int64_t n, const void *grads, const void *inputs, void *totals) {
  const real *grad_y = grads, *z = inputs;
  real *sums = totals;
  int64_t i = 0;
  for (; i + LANES <= n; i += LANES) {
    vec at = vec_load(z + i), term = vec_mul(vec_load(grad_y + i), at);
    vec kept = vec_select(mask_gt(at, vec_set1(0)), vec_set1(0), term);
    vec_store(sums + i, vec_add(vec_load(sums + i), kept));
  }
  for (; i < n; i++) sums[i] += z[i] > 0 ? 0 : grad_y[i] * z[i];
}
