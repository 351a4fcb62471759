/* Hash embeddings: the sum of four rows of a table, which a hash of an id chooses (Svenstrup, Hansen & Winther 2017).
 * The hash is that of Thinc's HashEmbed: MurmurHash3 of 128 bits for x64, of the id's 8 bytes. */
#ifndef FA_HASH_EMBED_H
#define FA_HASH_EMBED_H

#ifndef REAL_BITS
#include "kernels/editor.h"
#endif

/* Rows whose keys are computed before their vectors. */
#define KEYED_ROWS 64

static ALWAYS_INLINE uint64_t mix(uint64_t h) {
  h ^= h >> 33;
  h *= 0xff51afd7ed558ccdu;
  h ^= h >> 33;
  h *= 0xc4ceb9fe1a85ec53u;
  return h ^ h >> 33;
}

/* a % n for magic = 2^64 / n, rounded up (Lemire, Kaser & Kurz 2019): the low 64 bits of magic a are the fraction of
 * a / n, of which n times is the remainder. */
static ALWAYS_INLINE uint32_t remainder_by(uint32_t a, uint64_t magic, uint32_t n) {
  uint64_t fraction = magic * a;
  return (uint32_t)(((fraction >> 32) * n + ((fraction & 0xffffffffu) * n >> 32)) >> 32);
}

static void hash_keys(int64_t rows, const uint64_t *ids, int64_t id_stride, uint32_t seed, uint32_t table_rows,
                      uint32_t *keys) {
  const uint64_t magic = UINT64_MAX / table_rows + 1;
  for (int64_t i = 0; i < rows; i++) {
    uint64_t h1 = ids[i * id_stride] * 0x87c37b91114253d5u, h2 = seed ^ 8;
    h1 = (h1 << 31 | h1 >> 33) * 0x4cf5ad432745937fu;
    h1 = (h1 ^ seed ^ 8) + h2;
    h2 += h1;
    h1 = mix(h1);
    h2 = mix(h2);
    h1 += h2;
    h2 += h1;
    keys[4 * i] = remainder_by((uint32_t)h1, magic, table_rows);
    keys[4 * i + 1] = remainder_by((uint32_t)(h1 >> 32), magic, table_rows);
    keys[4 * i + 2] = remainder_by((uint32_t)h2, magic, table_rows);
    keys[4 * i + 3] = remainder_by((uint32_t)(h2 >> 32), magic, table_rows);
  }
}

/* The four rows are added to 0 in their order, as Thinc adds them. */
static void hash_embed(const struct hash_embed *e) {
  const real *table = e->table, *scale = e->scale;
  const vec zero = vec_set1(0);
  for (int64_t first = 0; first < e->rows; first += KEYED_ROWS) {
    const int64_t count = e->rows - first < KEYED_ROWS ? e->rows - first : KEYED_ROWS;
    uint32_t block[4 * KEYED_ROWS], *keys = block; /* another thread may write to e->keys */
    hash_keys(count, e->ids + first * e->id_stride, e->id_stride, e->seed, e->table_rows, keys);
    memcpy(e->keys + 4 * first, keys, (size_t)count * 4 * sizeof *keys);
    real *y = (real *)e->y + first * e->stride;
    for (int64_t i = 0; i < count; i++, keys += 4, y += e->stride) {
      const real *row[4];
      for (int k = 0; k < 4; k++) row[k] = table + keys[k] * e->columns;
      int64_t j = 0;
      for (; j + LANES <= e->columns; j += LANES) {
        vec sum = zero;
        UNROLL
        for (int k = 0; k < 4; k++) sum = vec_add(sum, vec_load(row[k] + j));
        vec_store(y + j, scale ? vec_mul(sum, vec_load(scale + j)) : sum);
      }
      for (; j < e->columns; j++) {
        real sum = 0;
        for (int k = 0; k < 4; k++) sum += row[k][j];
        y[j] = scale ? sum * scale[j] : sum;
      }
    }
  }
}

/* All first keys are done before all second ones, as in Thinc: so a gradient that was 0 becomes the same to the bit. */
static void hash_embed_backward(const struct hash_embed_backward *b) {
  const real *scale = b->scale;
  for (int k = 0; k < 4; k++) {
    const real *grad_y = b->grad_y;
    for (int64_t i = 0; i < b->rows; i++, grad_y += b->grad_stride) {
      const uint32_t key = b->keys[4 * i + k];
      if (key >= b->table_rows) continue; /* another thread has written to keys */
      real *grad = (real *)b->grad + key * b->stride;
      int64_t j = 0;
      for (; j + LANES <= b->columns; j += LANES) {
        vec g = vec_load(grad_y + j);
        vec_store(grad + j, vec_add(vec_load(grad + j), scale ? vec_mul(g, vec_load(scale + j)) : g));
      }
      for (; j < b->columns; j++) grad[j] += scale ? grad_y[j] * scale[j] : grad_y[j];
    }
  }
}

#endif
