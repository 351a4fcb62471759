/* A formula over arrays of REAL_BITS, WIDE_LANES at a time. */

typedef wide REAL(formula)(wide z, double parameter);

/* y = f(z); y may be z.  The last, incomplete block goes through a padded copy. */
static ALWAYS_INLINE void REAL(map)(REAL(formula) * f, double parameter, const real *z, real *y, int64_t n) {
  real rest[WIDE_LANES] = {0};
  for (int64_t i = 0; i < n; i += WIDE_LANES) {
    int whole = n - i >= WIDE_LANES;
    if (!whole) memcpy(rest, z + i, (size_t)(n - i) * sizeof(real));
    REAL(wide_store)(whole ? y + i : rest, f(REAL(wide_load)(whole ? z + i : rest), parameter));
    if (!whole) memcpy(y + i, rest, (size_t)(n - i) * sizeof(real));
  }
}

/* grad_z = grad_y f(z); grad_z may be grad_y or z */
static ALWAYS_INLINE void REAL(chain)(REAL(formula) * f, double parameter, const real *grad_y, const real *z,
                                      real *grad_z, int64_t n) {
  real rest[WIDE_LANES] = {0}, rest_grad[WIDE_LANES] = {0};
  for (int64_t i = 0; i < n; i += WIDE_LANES) {
    int whole = n - i >= WIDE_LANES;
    if (!whole) {
      memcpy(rest, z + i, (size_t)(n - i) * sizeof(real));
      memcpy(rest_grad, grad_y + i, (size_t)(n - i) * sizeof(real));
    }
    wide slope = f(REAL(wide_load)(whole ? z + i : rest), parameter);
    wide grad = REAL(wide_load)(whole ? grad_y + i : rest_grad);
    REAL(wide_store)(whole ? grad_z + i : rest, wide_mul(grad, slope));
    if (!whole) memcpy(grad_z + i, rest, (size_t)(n - i) * sizeof(real));
  }
}
