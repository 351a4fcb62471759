/* The limit of gathers: rows of a table summed at random, on tables of growing size, with the numbers of the rows known
 * beforehand.  bench/tuning: gather-vectors
 *
 *     cc -O3 -march=native -o gather_limit bench/tuning/gather_limit.c && ./gather_limit
 */
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#define SUMS 1024
#define MAX_TERMS 32
#define CALLS 300

typedef float vector __attribute__((vector_size(64)));

static double seconds(void) {
  struct timespec t;
  clock_gettime(CLOCK_MONOTONIC, &t);
  return (double)t.tv_sec + (double)t.tv_nsec * 1e-9;
}

/* sums [SUMS][vectors] += the sums of `terms` rows of the table each */
static inline __attribute__((always_inline)) void gather(int vectors, const vector *table, const uint32_t *row,
                                                         int terms, vector *sums) {
  for (int n = 0; n < SUMS; n++, row += terms, sums += vectors) {
    vector acc[10] = {0};
    for (int k = 0; k < terms; k++)
      for (int v = 0; v < vectors; v++) acc[v] += 1.0001f * table[row[k] * (uint32_t)vectors + (uint32_t)v];
    for (int v = 0; v < vectors; v++) sums[v] += acc[v];
  }
}

static __attribute__((noinline)) void gather_5(const vector *table, const uint32_t *row, int terms, vector *sums) {
  gather(5, table, row, terms, sums);
}

static __attribute__((noinline)) void gather_10(const vector *table, const uint32_t *row, int terms, vector *sums) {
  gather(10, table, row, terms, sums);
}

static void measure(int vectors, int pieces, int terms) {
  size_t rows = (size_t)(pieces * terms), row_bytes = (size_t)vectors * sizeof(vector);
  vector *table = aligned_alloc(64, rows * row_bytes), *sums = aligned_alloc(64, SUMS * row_bytes);
  static uint32_t row[SUMS * MAX_TERMS];
  if (!table || !sums) exit(1);
  memset(table, 0, rows * row_bytes);
  memset(sums, 0, SUMS * row_bytes);
  for (int i = 0; i < SUMS * terms; i++) row[i] = (uint32_t)(i % terms * pieces + rand() % pieces);
  double best = 1e9;
  for (int call = 0; call < CALLS; call++) {
    double start = seconds();
    (vectors == 5 ? gather_5 : gather_10)(table, row, terms, sums);
    double taken = seconds() - start;
    if (taken < best) best = taken;
  }
  printf("%2d pieces, %2d vectors, %2d outputs: table of %4zu KiB, %5.1f GFLOP/s\n", pieces, vectors, terms,
         rows * row_bytes / 1024, 2.0 * SUMS * terms * vectors * 16 / best / 1e9);
  free(table);
  free(sums);
}

int main(void) {
  for (int pieces = 4; pieces <= 32; pieces *= 2)
    for (int vectors = 5; vectors <= 10; vectors += 5)
      for (int terms = 2; terms <= MAX_TERMS; terms *= 2) measure(vectors, pieces, terms);
}
