/* Fuzzes the C ABI: the bytes of an input choose an instruction set, a driver, its sizes and numbers.  Each array is a
 * block of its own of the exact size, so that AddressSanitizer sees what is read or written beyond.  Every call runs
 * on one thread and again on several: results have the same bits, inputs are as they were.  Sums of ordinary numbers
 * are also compared with plain loops.  tests/coverage_guided/abi.py builds and runs this. */
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "api/abi.h"
#include "engine/sizes.h"
#include "kernels/activation_list.h"
#include "plain.h"

#define REQUIRE(holds)                                                                                                 \
  do {                                                                                                                 \
    if (!(holds)) {                                                                                                    \
      fprintf(stderr, "%s:%d: wanted %s\n", __FILE__, __LINE__, #holds);                                               \
      abort();                                                                                                         \
    }                                                                                                                  \
  } while (0)

/* Multiplications of a call: enough for a team of threads, and little enough for a hundred calls a second. */
#define MOST_WORK ((int64_t)1 << 19)
#define MOST_ARRAYS 32

struct array {
  char *block, *data;
  size_t bytes;
  uint64_t before; /* of an input: its hash */
};

/* One run of the call that the bytes describe. */
struct call {
  const uint8_t *bytes;
  size_t left;
  int dtype, threads, precision;
  int special; /* one number of so many is NaN, infinite, denormal or huge; 0: none */
  uint32_t seed;
  int count;
  struct array arrays[MOST_ARRAYS];
};

static int byte(struct call *c) {
  if (!c->left) return 0;
  c->left--;
  return *c->bytes++;
}

/* A size from `least` on: any small one, or one at the edges of vectors, tiles and blocks. */
static int64_t size(struct call *c, int64_t least) {
  static const int16_t edges[] = {63, 64, 65, 95, 96, 97, 127, 128, 129, 160, 191, 193, 255, 256, 257, 300, 511, 513};
  const int b = byte(c);
  const int64_t n = b < 160 ? b % 40 : edges[b % (int)(sizeof edges / sizeof *edges)];
  return n < least ? least : n;
}

/* The size, or as much of it as `work` multiplications for each leave. */
static int64_t limited(int64_t size, int64_t work) {
  const int64_t most = MOST_WORK / (work > 1 ? work : 1);
  return size < most ? size : most > 1 ? most : 1;
}

static uint64_t hash(uint64_t h, const void *data, size_t bytes) {
  for (size_t i = 0; i < bytes; i++) h = (h ^ ((const uint8_t *)data)[i]) * 1099511628211u;
  return h;
}

static struct array *allocate(struct call *c, int64_t count, size_t itemsize) {
  REQUIRE(c->count < MOST_ARRAYS);
  struct array *a = &c->arrays[c->count++];
  const size_t offset = (size_t)(c->seed >> 8) % 5 * itemsize; /* aligned to elements, no more */
  a->bytes = (size_t)count * itemsize;
  a->block = malloc(offset + a->bytes);
  a->data = a->block + offset;
  a->before = 0;
  REQUIRE(a->block);
  return a;
}

static uint32_t draw(struct call *c) { return c->seed = c->seed * 1664525u + 1013904223u; }

static double number(struct call *c) {
  static const double specials[] = {NAN, INFINITY, -INFINITY, 0, -0.0, 1e-40, -1e-310, 3e38, -1e300, 5e-324, 88.8, 1};
  const uint32_t drawn = draw(c) >> 8;
  if (c->special && drawn % (uint32_t)c->special == 0)
    return specials[(draw(c) >> 8) % (uint32_t)(sizeof specials / sizeof *specials)];
  return (int32_t)(draw(c)) * 0x1p-31;
}

/* An array of numbers. */
static void *numbers(struct call *c, int64_t count) {
  struct array *a = allocate(c, count, c->dtype == FA_FLOAT32 ? 4 : 8);
  for (int64_t i = 0; i < count; i++) {
    const double value = number(c);
    if (c->dtype == FA_FLOAT32)
      ((float *)a->data)[i] = fabs(value) > FLT_MAX ? (value > 0 ? INFINITY : -INFINITY) : (float)value;
    else
      ((double *)a->data)[i] = value;
  }
  return a->data;
}

/* An input, which has to stay as it is. */
static const void *input(struct call *c, int64_t count) {
  const void *data = numbers(c, count);
  struct array *a = &c->arrays[c->count - 1];
  a->before = hash(1, a->data, a->bytes);
  return data;
}

/* An output of elements of the dtype or of `itemsize` bytes. */
static void *bytes_out(struct call *c, int64_t count, size_t itemsize) {
  struct array *a = allocate(c, count, itemsize);
  memset(a->data, 0x3f, a->bytes);
  return a->data;
}

static void *output(struct call *c, int64_t count) { return bytes_out(c, count, c->dtype == FA_FLOAT32 ? 4 : 8); }

/* Or NULL, as a bit of `flags` says. */
static const void *maybe_input(struct call *c, int64_t count, int flag) { return flag ? input(c, count) : NULL; }
static void *maybe_output(struct call *c, int64_t count, int flag) { return flag ? output(c, count) : NULL; }
static void *maybe_numbers(struct call *c, int64_t count, int flag) { return flag ? numbers(c, count) : NULL; }

/* Bytes of argmax below `pieces`, but for one of `wrong` if that is not 0. */
static const uint8_t *winners(struct call *c, int64_t count, int64_t pieces, int *bad, int wrong) {
  struct array *a = allocate(c, count, 1);
  *bad = 0;
  for (int64_t i = 0; i < count; i++) {
    const uint32_t drawn = draw(c) >> 8;
    a->data[i] = (char)(wrong && drawn % (uint32_t)wrong == 0 ? drawn >> 12 : drawn % (uint32_t)pieces);
    *bad |= (uint8_t)a->data[i] >= pieces;
  }
  a->before = hash(1, a->data, a->bytes);
  return (const uint8_t *)a->data;
}

static int compares(const struct call *c) { return !c->special && c->precision == FA_HIGHEST; }

static void linear_maxout(struct call *c) {
  const int64_t rows = size(c, 0), inputs = size(c, 0), pieces = limited(1 + byte(c), inputs);
  const int64_t outputs = limited(size(c, 0), inputs * pieces), n = limited(rows, outputs * inputs * pieces);
  const int flags = byte(c), units = (int)(outputs * pieces);
  const void *x = input(c, n * inputs), *weight = input(c, units * inputs), *bias = maybe_input(c, units, flags & 1);
  void *y = output(c, n * outputs);
  uint8_t *argmax = flags & 2 ? bytes_out(c, n * outputs, 1) : NULL;
  REQUIRE(
      !fa_linear_maxout(c->dtype, n, inputs, outputs, pieces, x, weight, bias, y, argmax, c->threads, c->precision));
  for (int64_t i = 0; compares(c) && i < n * outputs; i++) {
    double best = -HUGE_VAL, most = 0, magnitude;
    for (int64_t unit = i % outputs * pieces; unit < (i % outputs + 1) * pieces; unit++) {
      const double b = bias ? element_of(c->dtype, bias, unit) : 0;
      const double z = b + dot(c->dtype, x, i / outputs * inputs, 1, weight, unit * inputs, 1, inputs, &magnitude);
      if (z > best) best = z;
      if (magnitude + fabs(b) > most) most = magnitude + fabs(b);
    }
    REQUIRE(close_to(c->dtype, element_of(c->dtype, y, i), best, inputs + 1, most));
    REQUIRE(!argmax || argmax[i] < pieces);
  }
}

static void linear_maxout_backward(struct call *c) {
  const int64_t rows = size(c, 0), inputs = size(c, 0), pieces = limited(1 + byte(c), inputs);
  const int64_t outputs = limited(size(c, 0), inputs * pieces), n = limited(rows, outputs * inputs);
  const int flags = byte(c), units = (int)(outputs * pieces);
  int bad;
  const void *grad_y = input(c, n * outputs), *x = input(c, n * inputs), *weight = input(c, units * inputs);
  const uint8_t *argmax = winners(c, n * outputs, pieces, &bad, flags & 32 ? byte(c) : 0);
  void *grad_x = maybe_output(c, n * inputs, flags & 1), *grad_weight = maybe_numbers(c, units * inputs, flags & 2);
  void *grad_bias = maybe_numbers(c, units, flags & 4);
  const int status = fa_linear_maxout_backward(c->dtype, n, inputs, outputs, pieces, grad_y, x, weight, argmax, grad_x,
                                               grad_weight, grad_bias, flags >> 3 & 1, c->threads, c->precision);
  /* an argmax that no gradient needs may stay unread */
  REQUIRE(status == FA_OK || (bad && status == FA_BAD_ARGMAX));
  for (int64_t i = 0; compares(c) && status == FA_OK && !bad && grad_x && i < n * inputs; i++) {
    double sum = 0, magnitude = 0;
    for (int64_t output = 0; output < outputs; output++) {
      const int64_t at = i / inputs * outputs + output;
      const double term = element_of(c->dtype, grad_y, at) *
                          element_of(c->dtype, weight, (output * pieces + argmax[at]) * inputs + i % inputs);
      sum += term;
      magnitude += fabs(term);
    }
    REQUIRE(close_to(c->dtype, element_of(c->dtype, grad_x, i), sum, outputs, magnitude));
  }
}

static void maxout(struct call *c) {
  const int64_t outer = size(c, 0), pieces = 1 + byte(c), inner = limited(size(c, 0), pieces);
  const int64_t n = limited(outer, pieces * inner);
  const int flags = byte(c);
  int bad;
  const void *z = input(c, n * pieces * inner), *grad_y = input(c, n * inner);
  void *y = output(c, n * inner), *grad_z = output(c, n * pieces * inner);
  uint8_t *argmax = flags & 1 ? bytes_out(c, n * inner, 1) : NULL;
  fa_maxout(c->dtype, n, pieces, inner, z, y, argmax, c->threads);
  for (int64_t i = 0; argmax && i < n * inner; i++) {
    REQUIRE(argmax[i] < pieces);
    const int64_t winner = (i / inner * pieces + argmax[i]) * inner + i % inner;
    const double value = element_of(c->dtype, y, i), won = element_of(c->dtype, z, winner);
    REQUIRE(value == won || (isnan(value) && isnan(won)));
  }
  const uint8_t *given = winners(c, n * inner, pieces, &bad, flags & 2 ? byte(c) : 0);
  const int status = fa_maxout_backward(c->dtype, n, pieces, inner, grad_y, given, grad_z, c->threads);
  REQUIRE(status == (bad ? FA_BAD_ARGMAX : FA_OK));
}

/* One of the activations, and its slope. */
struct function {
  int64_t code, slopes;
  const void *slope;
  double parameter;
};

static struct function function(struct call *c, int64_t features) {
  struct function f = {byte(c) % (FA_LOGSIGMOID + 1), 0, NULL, byte(c) / 64.0};
  if (f.code == FA_PRELU) {
    f.slopes = byte(c) & 1 ? features : 1;
    f.slope = input(c, f.slopes);
  }
  return f;
}

static void activation(struct call *c) {
  const int64_t features = size(c, 0), rows = limited(size(c, 0), features), n = rows * features;
  const int flags = byte(c);
  const struct function f = function(c, features);
  void *z = numbers(c, n), *y = flags & 1 ? z : output(c, n);
  fa_activation(c->dtype, rows, features, f.code, f.parameter, f.slope, f.slopes, z, y, c->threads);
  void *grad_y = numbers(c, n), *saved = numbers(c, n);
  void *grad_z = flags & 2 ? grad_y : flags & 4 ? saved : output(c, n);
  void *grad_slope = maybe_numbers(c, f.slopes, f.slope && flags & 8);
  REQUIRE(!fa_activation_backward(c->dtype, rows, features, f.code, f.parameter, f.slope, f.slopes, grad_y, saved,
                                  grad_z, grad_slope, flags >> 4 & 1, c->threads));
}

static void linear_activation(struct call *c) {
  const int64_t inputs = size(c, 0), outputs = limited(size(c, 0), inputs);
  const int64_t rows = limited(size(c, 0), inputs * outputs), n = rows * outputs;
  const int flags = byte(c);
  const struct function f = function(c, outputs);
  const void *x = input(c, rows * inputs), *weight = input(c, outputs * inputs);
  const void *bias = maybe_input(c, outputs, flags & 1);
  void *y = output(c, n), *z = maybe_output(c, n, flags & 2);
  REQUIRE(!fa_linear_activation(c->dtype, rows, inputs, outputs, f.code, f.parameter, f.slope, f.slopes, x, weight,
                                bias, y, z, c->threads, c->precision));
  for (int64_t i = 0; compares(c) && z && i < n; i++) {
    double magnitude;
    const double b = bias ? element_of(c->dtype, bias, i % outputs) : 0;
    const double sum =
        b + dot(c->dtype, x, i / outputs * inputs, 1, weight, i % outputs * inputs, 1, inputs, &magnitude);
    REQUIRE(close_to(c->dtype, element_of(c->dtype, z, i), sum, inputs + 1, magnitude + fabs(b)));
  }
  const void *grad_y = input(c, n), *saved = input(c, n);
  void *grad_x = maybe_output(c, rows * inputs, flags & 4);
  void *grad_weight = maybe_numbers(c, outputs * inputs, flags & 8), *grad_bias = maybe_numbers(c, outputs, flags & 16);
  void *grad_slope = maybe_numbers(c, f.slopes, f.slope && flags & 32);
  REQUIRE(!fa_linear_activation_backward(c->dtype, rows, inputs, outputs, f.code, f.parameter, f.slope, f.slopes,
                                         grad_y, x, weight, saved, grad_x, grad_weight, grad_bias, grad_slope,
                                         flags >> 6 & 1, c->threads, c->precision));
}

/* Elements of a matrix whose rows are `stride` apart. */
static int64_t span(int64_t rows, int64_t columns, int64_t stride) {
  return rows && columns ? (rows - 1) * stride + columns : 0;
}

static void matmul(struct call *c) {
  const int64_t depth = size(c, 0), columns = limited(size(c, 0), depth), rows = limited(size(c, 0), depth * columns);
  const int flags = byte(c), trans_a = flags & 1, trans_b = flags >> 1 & 1;
  const double alpha = flags & 4 ? 1 : number(c), beta = flags & 8 ? 0 : number(c);
  const int64_t a_columns = trans_a ? rows : depth, b_columns = trans_b ? depth : columns;
  const int64_t a_stride = a_columns + byte(c) % 4, b_stride = b_columns + byte(c) % 4,
                c_stride = columns + byte(c) % 4;
  const void *a = input(c, span(trans_a ? depth : rows, a_columns, a_stride));
  const void *b = input(c, span(trans_b ? columns : depth, b_columns, b_stride));
  void *result = numbers(c, span(rows, columns, c_stride));
  REQUIRE(!fa_matmul(c->dtype, trans_a, trans_b, rows, columns, depth, alpha, a, a_stride, b, b_stride, beta, result,
                     c_stride, c->threads, c->precision));
  for (int64_t i = 0; compares(c) && flags & 4 && flags & 8 && i < rows * columns; i++) {
    const int64_t row = i / columns, column = i % columns;
    double magnitude;
    const double sum = dot(c->dtype, a, trans_a ? row : row * a_stride, trans_a ? a_stride : 1, b,
                           trans_b ? column * b_stride : column, trans_b ? 1 : b_stride, depth, &magnitude);
    REQUIRE(close_to(c->dtype, element_of(c->dtype, result, row * c_stride + column), sum, depth, magnitude));
  }
}

/* For programs that call BLAS: the leading dimensions are not below 1. */
static void blas(struct call *c) {
  const int rows = (int)size(c, 0), columns = (int)limited(size(c, 0), rows);
  const int depth = (int)limited(size(c, 0), (int64_t)rows * columns), n = (int)size(c, 0), flags = byte(c);
  const int trans_a = flags & 1, trans_b = flags >> 1 & 1, a_columns = trans_a ? rows : depth;
  const int b_columns = trans_b ? depth : columns, x_step = 1 + byte(c) % 3, y_step = 1 + byte(c) % 3;
  const double alpha = number(c);
  if (c->dtype == FA_FLOAT32) {
    const void *a = input(c, (int64_t)rows * depth), *b = input(c, (int64_t)depth * columns);
    fa_sgemm(trans_a, trans_b, rows, columns, depth, 1, a, a_columns, b, b_columns, flags >> 2 & 1,
             numbers(c, (int64_t)rows * columns), columns);
    fa_saxpy_in_force()(n, flags & 8 ? 1.0f : 0.5f, input(c, span(n, 1, x_step)), x_step,
                        numbers(c, span(n, 1, y_step)), y_step);
  } else {
    fa_daxpy_in_force()(n, alpha, input(c, span(n, 1, x_step)), x_step, numbers(c, span(n, 1, y_step)), y_step);
  }
}

static void layer_norm(struct call *c) {
  const int64_t features = size(c, 1), rows = limited(size(c, 0), features), n = rows * features;
  const int flags = byte(c);
  void *x = numbers(c, n), *y = flags & 1 ? x : output(c, n), *saved = maybe_output(c, 2 * rows, flags & 2);
  const void *weight = maybe_input(c, features, flags & 4), *bias = maybe_input(c, features, flags & 8);
  fa_layer_norm(c->dtype, rows, features, 1e-5, x, weight, bias, y, saved, c->threads);
  void *grad_y = numbers(c, n), *grad_x = flags & 16 ? grad_y : output(c, n);
  const void *given = input(c, n), *statistics = input(c, 2 * rows);
  void *grad_weight = maybe_numbers(c, features, flags & 32), *grad_bias = maybe_numbers(c, features, flags & 64);
  REQUIRE(!fa_layer_norm_backward(c->dtype, rows, features, grad_y, given, weight, statistics, grad_x, grad_weight,
                                  grad_bias, flags >> 7, c->threads));
}

static void dropout_keep(struct call *c) {
  const int64_t n = size(c, 0) * (1 + byte(c));
  const double p = byte(c) / 256.0;
  uint8_t *keep = bytes_out(c, n, 1);
  fa_dropout_keep(n, draw(c), p, keep, c->threads);
  for (int64_t i = 0; i < n; i++) REQUIRE(keep[i] <= 1);
}

static void hash_embed(struct call *c) {
  enum { TABLES = 4 };
  const int64_t rows = size(c, 0), id_columns = 1 + byte(c) % 4;
  const int count = 1 + byte(c) % TABLES, flags = byte(c);
  struct fa_hash_table tables[TABLES], gradients[TABLES];
  int64_t columns = 0;
  for (int t = 0; t < count; t++) {
    const int64_t table_rows = size(c, 1), table_columns = size(c, 0);
    tables[t] = gradients[t] = (struct fa_hash_table){
        .rows = (uint32_t)table_rows, .seed = draw(c), .columns = table_columns, .id_column = byte(c) % id_columns};
    tables[t].data = numbers(c, table_rows * table_columns);
    gradients[t].data = numbers(c, table_rows * table_columns);
    tables[t].scale = gradients[t].scale = maybe_input(c, table_columns, flags >> t & 1);
    columns += table_columns;
  }
  uint64_t *ids = bytes_out(c, rows * id_columns, 8);
  for (int64_t i = 0; i < rows * id_columns; i++) ids[i] = (uint64_t)draw(c) << 32 | draw(c);
  void *y = output(c, rows * columns);
  uint32_t *keys = bytes_out(c, count * rows * 4, 4);
  fa_hash_embed(c->dtype, rows, id_columns, ids, count, tables, y, keys, c->threads);
  for (int64_t i = 0; i < count * rows * 4; i++) REQUIRE(keys[i] < tables[i / 4 / rows].rows);
  fa_hash_embed_backward(c->dtype, rows, input(c, rows * columns), keys, count, gradients, c->threads);
}

static void frozen(struct call *c) {
  enum { STEPS = 4 };
  static const int layers[] = {FA_LINEAR, FA_MAXOUT, FA_ACTIVATION, FA_LAYER_NORM};
  struct fa_step *steps[STEPS];
  const int count = 1 + byte(c) % STEPS;
  const int64_t first = size(c, 1), rows = size(c, 0);
  int64_t features = first, work = 1;
  for (int i = 0; i < count; i++) {
    const int layer = layers[byte(c) % 4], product = layer == FA_LINEAR || layer == FA_MAXOUT, flags = byte(c);
    const int64_t pieces = layer == FA_MAXOUT ? 1 + byte(c) % 5 : 1;
    const int64_t outputs = product ? limited(size(c, 1), features * pieces) : features;
    const struct function f =
        layer == FA_LINEAR || layer == FA_ACTIVATION ? function(c, outputs) : (struct function){0};
    const void *weight = product                  ? input(c, outputs * pieces * features)
                         : layer == FA_LAYER_NORM ? maybe_input(c, features, flags & 1)
                                                  : NULL;
    const void *bias = layer == FA_ACTIVATION ? NULL : maybe_input(c, outputs * pieces, flags & 2);
    steps[i] = fa_freeze(c->dtype, layer, features, outputs, pieces, weight, bias, f.code,
                         layer == FA_LAYER_NORM ? 1e-5 : f.parameter, f.slope, f.slopes, c->threads, c->precision);
    REQUIRE(steps[i]);
    work += product ? features * outputs * pieces : features;
    features = outputs;
  }
  const int64_t n = limited(rows, work);
  REQUIRE(!fa_run_frozen((const struct fa_step *const *)steps, count, n, input(c, n * first), output(c, n * features),
                         c->threads));
  for (int i = 0; i < count; i++) fa_free_frozen(steps[i]);
}

/* A number that has to have the same bits for any number of threads. */
static void result(struct call *c, double value) { memcpy(bytes_out(c, 1, sizeof value), &value, sizeof value); }

static void losses(struct call *c) {
  const int64_t n = size(c, 0) * (1 + byte(c));
  const void *y = input(c, n), *target = input(c, n);
  result(c, fa_mse(c->dtype, n, y, target, output(c, n), c->threads));
  result(c, fa_binary_cross_entropy(c->dtype, n, y, target, output(c, n), c->threads));
  result(c, fa_huber(c->dtype, n, y, target, 1 + byte(c) / 64.0, output(c, n), c->threads));
}

static void softmax_cross_entropy(struct call *c) {
  const int64_t classes = size(c, 1), rows = limited(size(c, 0), classes), ignored = byte(c) - 100;
  const int wrong = byte(c);
  int64_t *labels = bytes_out(c, rows, 8);
  int bad = 0;
  for (int64_t i = 0; i < rows; i++) {
    const uint32_t drawn = draw(c) >> 8;
    labels[i] = drawn % classes;
    if (wrong && drawn % (uint32_t)wrong == 0) labels[i] = (int64_t)((uint64_t)draw(c) << 40 ^ drawn);
    if (drawn % 16 == 1) labels[i] = ignored;
    bad |= labels[i] != ignored && (labels[i] < 0 || labels[i] >= classes);
  }
  double loss = 0;
  const double smoothing = byte(c) / 255.0;
  const int status = fa_softmax_cross_entropy(c->dtype, rows, classes, input(c, rows * classes), labels, smoothing,
                                              ignored, output(c, rows * classes), &loss, c->threads);
  REQUIRE(status == (bad ? FA_BAD_LABEL : FA_OK));
  result(c, loss);
}

static void optimizers(struct call *c) {
  const int64_t columns = size(c, 0), rows = limited(size(c, 0), columns), n = rows * columns;
  const int flags = byte(c);
  const double norm = flags & 1 ? 0.5 : INFINITY, decay = flags & 2 ? 0.01 : 0, momentum = byte(c) / 256.0;
  fa_sgd(c->dtype, rows, columns, 0.1, momentum, flags >> 2 & 1, decay, norm, input(c, n),
         maybe_numbers(c, n, flags & 8), numbers(c, n), c->threads);
  fa_adam(c->dtype, rows, columns, 0.1, momentum, 0.999, 1.5, 1e-8, decay, 0.99, norm, input(c, n), numbers(c, n),
          numbers(c, n), numbers(c, n), c->threads);
  fa_max_norm(c->dtype, rows, columns, 0.5, numbers(c, n), c->threads);
  result(c, fa_vector_norm(c->dtype, n, input(c, n), c->threads));
  fa_shrink(c->dtype, n, 0.75, numbers(c, n), c->threads);
  void *mean = maybe_numbers(c, n, flags & 16), *square = maybe_numbers(c, n, flags & 16);
  fa_update_parameter(c->dtype, n, flags & 32 ? 1 : 0, decay, 0.1, 0.9, 0.999, 1e-8, decay, 0.25, numbers(c, n), mean,
                      square, numbers(c, n), maybe_numbers(c, n, flags & 64), c->threads);
}

static void (*const drivers[])(struct call *c) = {
    linear_maxout,
    linear_maxout_backward,
    maxout,
    activation,
    linear_activation,
    matmul,
    blas,
    layer_norm,
    dropout_keep,
    hash_embed,
    frozen,
    losses,
    optimizers,
    softmax_cross_entropy,
};

/* Gives every NaN of a result the same bits, which depend on the order of a multiply-add's operands. */
static void join_nans(struct array *a, int dtype) {
  const size_t itemsize = dtype == FA_FLOAT32 ? 4 : 8;
  const float nan32 = NAN;
  const double nan64 = NAN;
  for (size_t at = 0; at + itemsize <= a->bytes; at += itemsize) {
    float f = 0;
    double d = 0;
    memcpy(dtype == FA_FLOAT32 ? (void *)&f : (void *)&d, a->data + at, itemsize);
    if (dtype == FA_FLOAT32 ? isnan(f) : isnan(d))
      memcpy(a->data + at, dtype == FA_FLOAT32 ? (const void *)&nan32 : (const void *)&nan64, itemsize);
  }
}

/* Runs the call; the hash of all arrays after it. */
static uint64_t run(struct call c, int driver) {
  uint64_t all = 1;
  drivers[driver](&c);
  for (int i = 0; i < c.count; i++) {
    struct array *a = &c.arrays[i];
    REQUIRE(!a->before || a->before == hash(1, a->data, a->bytes));
    if (!a->before) join_nans(a, c.dtype);
    all = hash(all, a->data, a->bytes);
    free(a->block);
  }
  return all;
}

int LLVMFuzzerTestOneInput(const uint8_t *bytes, size_t count) {
  struct call c = {.bytes = bytes, .left = count};
  const int isa = byte(&c) % fa_isa_count(), driver = byte(&c) % (int)(sizeof drivers / sizeof *drivers);
  if (!fa_isa_supported(isa)) return -1;
  REQUIRE(!fa_set_isa(fa_isa_name(isa)));
  c.dtype = byte(&c) & 1;
  c.precision = byte(&c) % 3;
  const int drawn = byte(&c), threads = 2 + drawn % 3, mode = drawn & 128 ? FA_REPRODUCIBLE : 0;
  c.special = byte(&c);
  c.special = c.special < 128 ? 0 : c.special - 127;
  c.seed = (uint32_t)byte(&c) * 0x9e3779b9u;
  c.threads = 1 | mode;
  const uint64_t alone = run(c, driver);
  c.threads = threads | mode;
  REQUIRE(run(c, driver) == alone);
  if (!mode || drivers[driver] == blas) return 0; /* which has no mode */
  for (int other = 0; other < fa_isa_count(); other++) {
    if (!fa_isa_supported(other)) continue;
    REQUIRE(!fa_set_isa(fa_isa_name(other)));
    REQUIRE(run(c, driver) == alone);
  }
  return 0;
}
