/* Packing: the operands of a product in the order in which the micro-kernel reads them.  Power-of-two row strides
 * otherwise evict each other from the L1 cache. */

typedef real quad __attribute__((vector_size(4 * sizeof(real))));

static ALWAYS_INLINE quad quad_load(const real *p) {
  quad q;
  memcpy(&q, p, sizeof q);
  return q;
}
static ALWAYS_INLINE void quad_store(real *p, quad q) { memcpy(p, &q, sizeof q); }

/* Depth that is packed at a time, for all rows or lanes, so that the packed lines are complete before they leave L1:
 * the forward of (100, 784, 240, 5) rose from 74 to 78 GFLOP/s. */
#define PACK_DEPTH 128

/* One row over at most PACK_DEPTH of depth -> dst [depth / 4][ROW_BLOCK][4], zeros beyond `depth` */
static ALWAYS_INLINE void pack_left_row(int64_t depth, const real *row, int64_t depth_stride, real *dst) {
  int64_t d = 0;
  if (depth_stride == 1)
    for (; d + 4 <= depth; d += 4, dst += ROW_BLOCK * 4) quad_store(dst, quad_load(row + d));
  for (; d < depth; d += 4, dst += ROW_BLOCK * 4)
    for (int q = 0; q < 4; q++) dst[q] = d + q < depth ? row[(d + q) * depth_stride] : 0;
}

/* src(row, d) -> dst [depth / 4][ROW_BLOCK][4], zeros below `rows` and beyond `depth` */
static void pack_left(int64_t rows, int64_t depth, const real *src, int64_t row_stride, int64_t depth_stride,
                      real *dst) {
  for (int64_t start = 0; start < depth; start += PACK_DEPTH) {
    int64_t length = depth - start < PACK_DEPTH ? depth - start : PACK_DEPTH, quads = (length + 3) / 4;
    real *to = dst + start * ROW_BLOCK;
    for (int64_t r = 0; r < rows; r++)
      pack_left_row(length, src + r * row_stride + start * depth_stride, depth_stride, to + r * 4);
    for (int64_t i = 0; i < quads && rows < ROW_BLOCK; i++)
      memset(to + (i * ROW_BLOCK + rows) * 4, 0, (size_t)(ROW_BLOCK - rows) * 4 * sizeof(real));
  }
}

/* Four lanes whose depth is contiguous: a 4 x 4 transposition at a time. */
static void pack_lanes_transposed(int64_t depth, const real *src, int64_t lane_stride, int64_t dst_stride, real *dst) {
  const real *s0 = src, *s1 = src + lane_stride, *s2 = src + 2 * lane_stride, *s3 = src + 3 * lane_stride;
  int64_t d = 0;
  for (; d + 4 <= depth; d += 4, dst += 4 * dst_stride) {
    quad a = quad_load(s0 + d), b = quad_load(s1 + d), c = quad_load(s2 + d), e = quad_load(s3 + d);
    quad ab_low = __builtin_shufflevector(a, b, 0, 4, 1, 5), ab_high = __builtin_shufflevector(a, b, 2, 6, 3, 7);
    quad ce_low = __builtin_shufflevector(c, e, 0, 4, 1, 5), ce_high = __builtin_shufflevector(c, e, 2, 6, 3, 7);
    quad_store(dst, __builtin_shufflevector(ab_low, ce_low, 0, 1, 4, 5));
    quad_store(dst + dst_stride, __builtin_shufflevector(ab_low, ce_low, 2, 3, 6, 7));
    quad_store(dst + 2 * dst_stride, __builtin_shufflevector(ab_high, ce_high, 0, 1, 4, 5));
    quad_store(dst + 3 * dst_stride, __builtin_shufflevector(ab_high, ce_high, 2, 3, 6, 7));
  }
  for (; d < depth; d++, dst += dst_stride) {
    dst[0] = s0[d];
    dst[1] = s1[d];
    dst[2] = s2[d];
    dst[3] = s3[d];
  }
}

/* src(d, vector, lane) -> dst [depth up to a multiple of 4][vectors][LANES], zeros beyond `columns` and `depth`.
 * `columns` counts the lanes inside the result: of every vector alike, or, where the vectors stand side by
 * side, of all together. */
static void pack_right(int vectors, int side_by_side, int64_t columns, int64_t depth, const real *src,
                       int64_t vector_stride, int64_t lane_stride, int64_t depth_stride, real *dst) {
  int64_t dst_stride = (int64_t)vectors * LANES;
  for (int64_t start = 0; start < depth; start += PACK_DEPTH) {
    int64_t length = depth - start < PACK_DEPTH ? depth - start : PACK_DEPTH;
    for (int v = 0; v < vectors; v++) {
      int64_t lanes = side_by_side ? columns - v * LANES : columns, lane = 0;
      if (lanes > LANES) lanes = LANES;
      const real *from = src + v * vector_stride + start * depth_stride;
      real *to = dst + start * dst_stride + v * LANES;
      if (lane_stride == 1 && lanes == LANES) {
        for (int64_t d = 0; d < length; d++) vec_store(to + d * dst_stride, vec_load(from + d * depth_stride));
        continue;
      }
      if (depth_stride == 1 && LANES % 4 == 0)
        for (; lane + 4 <= lanes; lane += 4)
          pack_lanes_transposed(length, from + lane * lane_stride, lane_stride, dst_stride, to + lane);
      for (; lane < LANES; lane++)
        for (int64_t d = 0; d < length; d++)
          to[d * dst_stride + lane] = lane < lanes ? from[lane * lane_stride + d * depth_stride] : 0;
    }
  }
  for (int64_t d = depth; d % 4; d++) memset(dst + d * dst_stride, 0, (size_t)dst_stride * sizeof(real));
}
