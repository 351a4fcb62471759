#include "engine/product.h"
#include "engine/sizes.h"
#include "engine/workspace.h"

/* An element of either enum fa_dtype. */
union number {
  float f32;
  double f64;
};

static union number number_of(int dtype, double value) {
  return dtype == FA_FLOAT32 ? (union number){.f32 = (float)value} : (union number){.f64 = value};
}

/* c = alpha product + beta c; with a beta of 0, c is not read and may be the product itself. */
struct combination {
  const struct kernels *kernels;
  union number alpha, beta;
  int adds; /* beta is not 0 */
  const char *product;
  int64_t product_stride;
  char *c;
  int64_t c_stride;
};

static void combine(const void *context, struct block block) {
  const struct combination *k = context;
  const struct kernels *kernels = k->kernels;
  for (int64_t row = block.row; row < block.row + block.rows; row++) {
    const char *product = element(k->product, row * k->product_stride + block.column, kernels->itemsize);
    char *c = element(k->c, row * k->c_stride + block.column, kernels->itemsize);
    if (k->adds) kernels->scale(block.columns, &k->beta, c, 0, c);
    kernels->scale(block.columns, &k->alpha, product, k->adds, c);
  }
}

int fa_matmul(int dtype, int trans_a, int trans_b, int64_t rows, int64_t columns, int64_t depth, double alpha,
              const void *a, int64_t a_stride, const void *b, int64_t b_stride, double beta, void *c, int64_t c_stride,
              int threads, int precision) {
  const struct call call = begin_call(dtype, precision, threads);
  const struct source left = trans_a ? dense_source(a, 1, a_stride) : dense_source(a, a_stride, 1);
  struct combination combination = {
      .kernels = call.kernels,
      .alpha = number_of(dtype, alpha),
      .beta = number_of(dtype, beta),
      .adds = beta != 0,
      .c = c,
      .c_stride = c_stride,
  };
  struct product product = {
      .rows = rows,
      .depth = alpha == 0 ? 0 : depth, /* then neither operand is read */
      .columns = columns,
      .pieces = 1,
      .left = &left,
      .right = {.data = b, .column_stride = trans_b ? b_stride : 1, .depth_stride = trans_b ? 1 : b_stride},
      .epilogue = {.y = c, .y_stride = c_stride, .accumulate = beta == 1},
  };
  if (alpha != 1 || (beta != 0 && beta != 1)) {
    if (beta != 0) {
      product.epilogue.y = workspace(WORKSPACE_GRADIENT, (size_t)(rows * columns * call.kernels->itemsize));
      if (!product.epilogue.y) return FA_NO_MEMORY;
      product.epilogue.y_stride = columns;
      product.epilogue.accumulate = 0;
    }
    combination.product = product.epilogue.y;
    combination.product_stride = product.epilogue.y_stride;
    product.epilogue.then = combine;
    product.epilogue.context = &combination;
  }
  return end_call(run_product(&call, &product));
}

/* fa_sgemm, slow and without any memory of its own. */
static void sgemm_in_place(int trans_a, int trans_b, int rows, int columns, int depth, float alpha, const float *a,
                           int64_t a_stride, const float *b, int64_t b_stride, float beta, float *c, int64_t c_stride) {
  for (int64_t i = 0; i < rows; i++) {
    for (int64_t j = 0; j < columns; j++) {
      const float *left = a + i * (trans_a ? 1 : a_stride), *right = b + j * (trans_b ? b_stride : 1);
      float *to = c + i * c_stride + j, sum = 0;
      for (int64_t k = 0; k < depth; k++)
        sum += left[k * (trans_a ? a_stride : 1)] * right[k * (trans_b ? 1 : b_stride)];
      *to = alpha * sum + (beta == 0 ? 0 : beta * *to);
    }
  }
}

void fa_sgemm(int trans_a, int trans_b, int rows, int columns, int depth, float alpha, const float *a, int a_stride,
              const float *b, int b_stride, float beta, float *c, int c_stride) {
  int status = fa_matmul(FA_FLOAT32, trans_a, trans_b, rows, columns, depth, (double)alpha, a, a_stride, b, b_stride,
                         (double)beta, c, c_stride, 1, FA_HIGHEST);
  if (status != FA_OK)
    sgemm_in_place(trans_a, trans_b, rows, columns, depth, alpha, a, a_stride, b, b_stride, beta, c, c_stride);
}

fa_saxpy fa_saxpy_in_force(void) { return (fa_saxpy)begin_call(FA_FLOAT32, FA_HIGHEST, 1).kernels->axpy; }
fa_daxpy fa_daxpy_in_force(void) { return (fa_daxpy)begin_call(FA_FLOAT64, FA_HIGHEST, 1).kernels->axpy; }
