/* Activations over arrays: those without an exponential in lanes of `real` here, those with one in activations_float.h
 * and activations_double.h.  The table at the end has a pair of functions for each activation of
 * activation_list.h, so an activation without its functions does not compile. */
#ifndef FA_ACTIVATIONS_H
#define FA_ACTIVATIONS_H

#ifndef REAL_BITS
#include "kernels/editor.h"
#endif

#include "kernels/activation_functions.h"
#include "kernels/activation_list.h"
#include "kernels/rest.h"
#if REAL_BITS == 32
#include "kernels/activations_float.h"
#else
#include "kernels/activations_double.h"
#endif

/* ---- over arrays of n; slope (n), or one for all where slope_step is 0 */

/* An array read in order.  Where a vector is as long as a cache line, a load of a vector that begins inside a line
 * touches two lines.  Loading whole lines, each once, and joining neighbours is faster.  bench/tuning: joined-lines */
struct stream {
  const real *next;
  vec line; /* the line before `next` */
  int first;
};

/* Starts at p.  The array must hold a vector before p and one after the last that is taken: whole lines are read. */
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

/* ---- in lanes; `slope` is the parameter of the activations that have one */

static ALWAYS_INLINE vec identity_lanes(vec z, vec slope) {
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

static ALWAYS_INLINE vec identity_grad(vec grad_y, vec y, vec slope) {
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

/* min(max(z, low), high); NaN where z is NaN */
static ALWAYS_INLINE vec clamp_lanes(vec z, real low, real high) {
  return vec_min(vec_set1(high), vec_max(vec_set1(low), z));
}

static ALWAYS_INLINE vec softsign_lanes(vec z, vec slope) {
  (void)slope;
  z = clamp_lanes(z, -REAL_MAX, REAL_MAX); /* an infinity divided by an infinity would be NaN */
  return vec_div(z, vec_add(vec_set1(1), vec_abs(z)));
}

/* (1 + a)^2 as 1 + a (a + 2), with one rounding less.  The square overflows where the derivative is below the normal
 * numbers, and the gradient is 0 there. */
static ALWAYS_INLINE vec softsign_grad(vec grad_y, vec z, vec slope) {
  (void)slope;
  vec a = vec_abs(z);
  return vec_div(grad_y, vec_fma(a, vec_add(a, vec_set1(2)), vec_set1(1)));
}

static ALWAYS_INLINE vec hardsigmoid_lanes(vec z, vec slope) {
  (void)slope;
  return vec_div(clamp_lanes(vec_add(z, vec_set1(3)), 0, 6), vec_set1(6));
}

static ALWAYS_INLINE vec hardsigmoid_grad(vec grad_y, vec z, vec slope) {
  (void)slope;
  return vec_select(mask_le(vec_set1(3), vec_abs(z)), vec_set1(0), vec_div(grad_y, vec_set1(6)));
}

/* z (z + 3) / 6 for -3 <= z <= 3.  For z > -1, where z + 3 may be rounded, z^2 / 6 + z / 2 has a smaller error; below,
 * where its two terms cancel, the product has. */
static ALWAYS_INLINE vec hardswish_lanes(vec z, vec slope) {
  (void)slope;
  vec a = clamp_lanes(z, -3, 3);
  mask sum = mask_gt(a, vec_set1(-1));
  vec quotient = vec_div(vec_mul(a, vec_select(sum, a, vec_add(a, vec_set1(3)))), vec_set1(6));
  vec inside = vec_add(quotient, vec_select(sum, vec_mul(a, vec_set1((real)0.5)), vec_set1(0)));
  return vec_select(mask_gt(z, vec_set1(3)), z, inside);
}

static ALWAYS_INLINE vec hardswish_grad(vec grad_y, vec z, vec slope) {
  (void)slope;
  vec middle = vec_mul(grad_y, vec_div(vec_add(vec_add(z, z), vec_set1(3)), vec_set1(6)));
  vec outside = vec_select(mask_gt(z, vec_set1(0)), grad_y, vec_set1(0));
  return vec_select(mask_le(vec_set1(3), vec_abs(z)), outside, middle);
}

static ALWAYS_INLINE vec hardtanh_lanes(vec z, vec slope) {
  (void)slope;
  return clamp_lanes(z, -1, 1);
}

static ALWAYS_INLINE vec hardtanh_grad(vec grad_y, vec y, vec slope) {
  (void)slope;
  return vec_select(mask_le(vec_set1(1), vec_abs(y)), vec_set1(0), grad_y);
}

static ALWAYS_INLINE vec relu6_lanes(vec z, vec slope) {
  (void)slope;
  return clamp_lanes(z, 0, 6);
}

static ALWAYS_INLINE vec relu6_grad(vec grad_y, vec y, vec slope) {
  (void)slope;
  return vec_select(mask_or(mask_le(y, vec_set1(0)), mask_le(vec_set1(6), y)), vec_set1(0), grad_y);
}

/* ---- one pair of functions for each activation */

/* name_forward over arrays, from a function of lanes, and name_backward */
#define LANES_FORWARD(name, f)                                                                                         \
  static void REAL(name##_forward)(const struct parameter *p, const void *z, void *y, int64_t n) {                     \
    real number = (real)p->number;                                                                                     \
    map_lanes(f, &number, 0, z, y, n);                                                                                 \
  }
#define LANES_BACKWARD(name, f)                                                                                        \
  static void REAL(name##_backward)(const struct parameter *p, const void *grad_y, const void *saved, void *grad_z,    \
                                    int64_t n) {                                                                       \
    real number = (real)p->number;                                                                                     \
    map_grad(f, &number, 0, grad_y, saved, grad_z, n);                                                                 \
  }

LANES_FORWARD(identity, identity_lanes)
LANES_BACKWARD(identity, identity_grad)
LANES_FORWARD(relu, relu_lanes)
LANES_BACKWARD(relu, relu_grad)
LANES_FORWARD(leaky_relu, leaky_lanes)
LANES_BACKWARD(leaky_relu, leaky_grad)
LANES_BACKWARD(sigmoid, sigmoid_grad)
LANES_BACKWARD(tanh, tanh_grad)
LANES_FORWARD(softsign, softsign_lanes)
LANES_BACKWARD(softsign, softsign_grad)
LANES_FORWARD(hardswish, hardswish_lanes)
LANES_BACKWARD(hardswish, hardswish_grad)
LANES_FORWARD(hardsigmoid, hardsigmoid_lanes)
LANES_BACKWARD(hardsigmoid, hardsigmoid_grad)
LANES_FORWARD(hardtanh, hardtanh_lanes)
LANES_BACKWARD(hardtanh, hardtanh_grad)
LANES_FORWARD(relu6, relu6_lanes)
LANES_BACKWARD(relu6, relu6_grad)

static void REAL(prelu_forward)(const struct parameter *p, const void *z, void *y, int64_t n) {
  if (p->slope_step)
    map_lanes(leaky_lanes, p->slope, 1, z, y, n);
  else
    map_lanes(leaky_lanes, p->slope, 0, z, y, n);
}

static void REAL(prelu_backward)(const struct parameter *p, const void *grad_y, const void *z, void *grad_z,
                                 int64_t n) {
  if (p->slope_step)
    map_grad(leaky_grad, p->slope, 1, grad_y, z, grad_z, n);
  else
    map_grad(leaky_grad, p->slope, 0, grad_y, z, grad_z, n);
}

struct activation_pair {
  forward_array *forward;
  backward_array *backward;
};
#define PAIR(NAME, name, forward_cost, backward_cost) [FA_##NAME] = {REAL(name##_forward), REAL(name##_backward)},
static const struct activation_pair activation_pairs[] = {FA_ACTIVATIONS(PAIR)};
#undef PAIR

static void activation(int activation, double number, const void *slope, int64_t slope_step, const void *z, void *y,
                       int64_t n) {
  activation_pairs[activation].forward(&(struct parameter){number, slope, slope_step}, z, y, n);
}

static void activation_backward(int activation, double number, const void *slope, int64_t slope_step,
                                const void *grad_y, const void *saved, void *grad_z, int64_t n) {
  activation_pairs[activation].backward(&(struct parameter){number, slope, slope_step}, grad_y, saved, grad_z, n);
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

#endif
