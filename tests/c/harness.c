/* A program without Python: products, gradients and an activation against plain loops in double, on each instruction
 * set of this CPU, with one and two threads, and from several threads at once.  Its last line is "N passed, N failed".
 * csrc/tools/cross_build.py compiles it for every target. */
#include <math.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "api/abi.h"
#include "engine/os.h"
#include "kernels/activation_list.h"
#include "plain.h"

/* Enough work for a team of two, and sizes that neither threads nor vectors divide. */
enum { ROWS = 67, INPUTS = 133, OUTPUTS = 61, PIECES = 3, UNITS = OUTPUTS * PIECES, CALLERS = 4, CALLS = 50 };

static atomic_int passed, failed;

static void check(int holds, const char *what, const char *where) {
  atomic_fetch_add(holds ? &passed : &failed, 1);
  if (!holds) printf("FAILED: %s, %s\n", what, where);
}

/* Numbers in [-1, 1) of a linear congruential generator. */
static void fill(float *values, int count, uint32_t seed) {
  for (int i = 0; i < count; i++) {
    seed = seed * 1664525u + 1013904223u;
    values[i] = (float)(int32_t)seed * 0x1p-31f;
  }
}

struct operands {
  float x[ROWS * INPUTS], weight[UNITS * INPUTS], bias[UNITS], grad_y[ROWS * OUTPUTS];
};

struct results {
  float y[ROWS * OUTPUTS], grad_x[ROWS * INPUTS], grad_weight[UNITS * INPUTS], grad_bias[UNITS];
  float linear[ROWS * UNITS], silu[ROWS * UNITS], product[ROWS * UNITS];
  uint8_t argmax[ROWS * OUTPUTS];
};

static int compute(const struct operands *o, struct results *r, int threads) {
  memset(r, 0, sizeof *r);
  int status = fa_linear_maxout(FA_FLOAT32, ROWS, INPUTS, OUTPUTS, PIECES, o->x, o->weight, o->bias, r->y, r->argmax,
                                threads, FA_HIGHEST);
  status |= fa_linear_maxout_backward(FA_FLOAT32, ROWS, INPUTS, OUTPUTS, PIECES, o->grad_y, o->x, o->weight, r->argmax,
                                      r->grad_x, r->grad_weight, r->grad_bias, 0, threads, FA_HIGHEST);
  status |= fa_linear_activation(FA_FLOAT32, ROWS, INPUTS, UNITS, FA_RELU, 0, NULL, 0, o->x, o->weight, o->bias,
                                 r->linear, NULL, threads, FA_HIGHEST);
  fa_activation(FA_FLOAT32, ROWS, UNITS, FA_SILU, 0, NULL, 0, r->linear, r->silu, threads);
  status |= fa_matmul(FA_FLOAT32, 0, 1, ROWS, UNITS, INPUTS, 1, o->x, INPUTS, o->weight, INPUTS, 0, r->product, UNITS,
                      threads, FA_HIGHEST);
  return status;
}

static void compare_forward(const struct operands *o, const struct results *r, const char *where) {
  int maxout = 1, relu = 1, silu = 1, product = 1;
  for (int row = 0; row < ROWS; row++)
    for (int output = 0; output < OUTPUTS; output++) {
      double best = -HUGE_VAL, most = 0;
      for (int piece = 0; piece < PIECES; piece++) {
        const int unit = output * PIECES + piece;
        const int64_t at = (int64_t)row * UNITS + unit;
        double magnitude;
        const double sum = dot(FA_FLOAT32, o->x, row * INPUTS, 1, o->weight, unit * INPUTS, 1, INPUTS, &magnitude);
        product &= close_to(FA_FLOAT32, r->product[at], sum, INPUTS, magnitude);
        const double z = sum + o->bias[unit];
        magnitude += fabs(o->bias[unit]);
        relu &= close_to(FA_FLOAT32, r->linear[at], z > 0 ? z : 0, INPUTS, magnitude);
        const double given = r->linear[at], s = given / (1 + exp(-given));
        silu &= close_to(FA_FLOAT32, r->silu[at], s, 2, fabs(s)); /* 2 ulps */
        if (z > best) best = z;
        if (magnitude > most) most = magnitude;
      }
      maxout &= close_to(FA_FLOAT32, r->y[row * OUTPUTS + output], best, INPUTS, most);
    }
  check(maxout, "linear + maxout", where);
  check(relu, "linear + relu", where);
  check(silu, "silu", where);
  check(product, "matmul", where);
}

/* The gradients with the winners of `r`. */
static void compare_gradients(const struct operands *o, const struct results *r, const char *where) {
  static float scattered[ROWS * UNITS]; /* grad_y at the winners */
  static float ones[ROWS];
  int x = 1, weight = 1, bias = 1;
  memset(scattered, 0, sizeof scattered);
  for (int i = 0; i < ROWS * OUTPUTS; i++) scattered[i * PIECES + r->argmax[i]] = o->grad_y[i];
  for (int row = 0; row < ROWS; row++) ones[row] = 1;
  double magnitude;
  for (int row = 0; row < ROWS; row++)
    for (int input = 0; input < INPUTS; input++) {
      const double sum = dot(FA_FLOAT32, scattered, row * UNITS, 1, o->weight, input, INPUTS, UNITS, &magnitude);
      x &= close_to(FA_FLOAT32, r->grad_x[row * INPUTS + input], sum, OUTPUTS, magnitude);
    }
  for (int unit = 0; unit < UNITS; unit++) {
    for (int input = 0; input < INPUTS; input++) {
      const double sum = dot(FA_FLOAT32, scattered, unit, UNITS, o->x, input, INPUTS, ROWS, &magnitude);
      weight &= close_to(FA_FLOAT32, r->grad_weight[unit * INPUTS + input], sum, ROWS, magnitude);
    }
    const double sum = dot(FA_FLOAT32, scattered, unit, UNITS, ones, 0, 1, ROWS, &magnitude);
    bias &= close_to(FA_FLOAT32, r->grad_bias[unit], sum, ROWS, magnitude);
  }
  check(x, "grad_x of linear + maxout", where);
  check(weight, "grad_weight of linear + maxout", where);
  check(bias, "grad_bias of linear + maxout", where);
}

/* ---- several callers at once, each with a team of its own */

static const struct operands *operands;
static const struct results *expected;
static atomic_int callers;

static void call_often(void *argument) {
  struct results *r = malloc(sizeof *r);
  int same = r != NULL;
  (void)argument;
  for (int i = 0; same && i < CALLS; i++) same = !compute(operands, r, 1 + i % 3) && !memcmp(r, expected, sizeof *r);
  check(same, "the same bits from several callers at once", fa_isa());
  free(r);
  atomic_fetch_sub(&callers, 1);
}

static void call_at_once(void) {
  static struct os_thread thread = {call_often, NULL};
  for (int i = 0; i < CALLERS; i++) {
    atomic_fetch_add(&callers, 1);
    if (os_start_thread(&thread)) {
      atomic_fetch_sub(&callers, 1);
      check(0, "a thread starts", fa_isa());
    }
  }
  while (atomic_load(&callers)) os_yield();
}

int main(void) {
  static struct operands o;
  static struct results one, two;
  fill(o.x, ROWS * INPUTS, 1);
  fill(o.weight, UNITS * INPUTS, 2);
  fill(o.bias, UNITS, 3);
  fill(o.grad_y, ROWS * OUTPUTS, 4);
  operands = &o;
  expected = &one;
  for (int i = 0; i < fa_isa_count(); i++) {
    const char *isa = fa_isa_name(i);
    if (!fa_isa_supported(i)) continue;
    printf("%s\n", isa);
    check(fa_set_isa(isa) == FA_OK, "the instruction set is in force", isa);
    check(compute(&o, &one, 1) == FA_OK, "calls on one thread", isa);
    compare_forward(&o, &one, isa);
    compare_gradients(&o, &one, isa);
    check(compute(&o, &two, 2) == FA_OK, "calls on two threads", isa);
    check(memcmp(&one, &two, sizeof one) == 0, "two threads give the same bits", isa);
    call_at_once();
  }
  printf("%d passed, %d failed\n", passed, failed);
  return failed > 0;
}
