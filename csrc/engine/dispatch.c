#include "engine/dispatch.h"

#include <stdatomic.h>
#include <string.h>

#include "engine/cpu.h"
#include "engine/workspace.h"

extern const struct kernels kernels_scalar_f32, kernels_scalar_f64;
extern const struct kernels kernels_scalar_reproducible_f32, kernels_scalar_reproducible_f64;
static int scalar_supported(void) { return 1; }

#if defined(__x86_64__)
#include "isa/amx/tuning.h"

extern const struct kernels kernels_avx2_f32, kernels_avx2_f64;
extern const struct kernels kernels_avx2_reproducible_f32, kernels_avx2_reproducible_f64;
extern const struct kernels kernels_avx512_f32, kernels_avx512_f64, kernels_avx512_bf16;
extern const struct kernels kernels_amx_1, kernels_amx_2, kernels_amx_3;

#if defined(FA_EMULATE_AVX512)
static int avx512_supported(void) { return 1; }
static int has_avx512_bf16(void) { return 1; }
#else
static int avx512_supported(void) { return cpu_has_avx512(); }
static int has_avx512_bf16(void) { return cpu_has_avx512_bf16(); }
#endif

static int amx_supported(void) { return avx512_supported() && !why_no_amx(); }

static const struct kernels *avx512_tier(int precision, const struct product_sizes *sizes) {
  (void)sizes;
  return precision == FA_MEDIUM && has_avx512_bf16() ? &kernels_avx512_bf16 : NULL;
}

static const struct kernels *amx_tier(int precision, const struct product_sizes *s) {
  if (precision == FA_MEDIUM) return &kernels_amx_1;
  if (precision == FA_HIGH) return &kernels_amx_2;
  int64_t units = s->columns * s->pieces;
  return s->rows >= MIN_HIGHEST_ROWS && s->depth >= MIN_HIGHEST_DEPTH && s->columns >= MIN_HIGHEST_COLUMNS &&
                 units >= MIN_HIGHEST_UNITS && s->rows * s->depth * units >= MIN_HIGHEST_TERMS
             ? &kernels_amx_3
             : NULL;
}
#elif defined(__AARCH64EL__)
extern const struct kernels kernels_neon_f32, kernels_neon_f64, kernels_neon_bf16;
extern const struct kernels kernels_neon_reproducible_f32, kernels_neon_reproducible_f64;
static int neon_supported(void) { return 1; } /* the baseline of AArch64 */

static const struct kernels *neon_tier(int precision, const struct product_sizes *sizes) {
  (void)sizes;
  return precision == FA_MEDIUM && has_neon_bf16() ? &kernels_neon_bf16 : NULL;
}
#endif

/* The ISAs of reproducible results, which have no tiers. */
#if defined(__x86_64__)
static const struct isa reproducible_avx512 = {.kernels = {&kernels_avx512_f32, &kernels_avx512_f64}};
static const struct isa reproducible_avx2 = {
    .kernels = {&kernels_avx2_reproducible_f32, &kernels_avx2_reproducible_f64}};
#elif defined(__AARCH64EL__)
static const struct isa reproducible_neon = {
    .kernels = {&kernels_neon_reproducible_f32, &kernels_neon_reproducible_f64}};
#endif
static const struct isa reproducible_scalar = {
    .kernels = {&kernels_scalar_reproducible_f32, &kernels_scalar_reproducible_f64}};

/* Best first.  AMX has tile kernels for its tiers only; its vector kernels are those of AVX-512. */
static const struct isa isas[] = {
#if defined(__x86_64__)
    {"amx", amx_supported, {&kernels_avx512_f32, &kernels_avx512_f64}, amx_tier, &reproducible_avx512},
    {"avx512", avx512_supported, {&kernels_avx512_f32, &kernels_avx512_f64}, avx512_tier, &reproducible_avx512},
    {"avx2", cpu_has_avx2, {&kernels_avx2_f32, &kernels_avx2_f64}, NULL, &reproducible_avx2},
#elif defined(__AARCH64EL__)
    {"neon", neon_supported, {&kernels_neon_f32, &kernels_neon_f64}, neon_tier, &reproducible_neon},
#endif
    {"scalar", scalar_supported, {&kernels_scalar_f32, &kernels_scalar_f64}, NULL, &reproducible_scalar},
};
enum { ISAS = sizeof isas / sizeof *isas };

static const struct isa *_Atomic active;

static const struct isa *isa_active(void) {
  const struct isa *isa = atomic_load_explicit(&active, memory_order_relaxed);
  if (isa) return isa;
  isa = isas;
  while (!isa->supported()) isa++;
  atomic_store_explicit(&active, isa, memory_order_relaxed);
  return isa;
}

struct call call_on(const struct isa *isa, int dtype, int precision, int threads) {
  return (struct call){
      .isa = isa, .kernels = isa->kernels[dtype], .dtype = dtype, .precision = precision, .threads = threads};
}

struct call begin_call(int dtype, int precision, int threads) {
  const struct isa *isa = isa_active();
  return call_on(threads & FA_REPRODUCIBLE ? isa->reproducible : isa, dtype, precision, threads);
}

int end_call(int status) {
  trim_workspace();
  return status;
}

const struct kernels *tier_kernels(const struct call *call, const struct product_sizes *sizes) {
  const struct kernels *(*tier)(int, const struct product_sizes *) = call->isa->tier;
  const struct kernels *kernels = tier && call->dtype == FA_FLOAT32 ? tier(call->precision, sizes) : NULL;
  return kernels ? kernels : call->kernels;
}

const char *fa_isa(void) { return isa_active()->name; }

int fa_set_isa(const char *name) {
  for (int i = 0; i < ISAS; i++) {
    if (strcmp(isas[i].name, name) == 0 && isas[i].supported()) {
      atomic_store_explicit(&active, &isas[i], memory_order_relaxed);
      return FA_OK;
    }
  }
  return FA_UNKNOWN_ISA;
}

int fa_isa_count(void) { return ISAS; }
const char *fa_isa_name(int index) { return isas[index].name; }
int fa_isa_supported(int index) { return isas[index].supported(); }
const char *fa_why_no_amx(void) { return why_no_amx(); }

const char *fa_tier_unit(int precision) {
  const struct product_sizes large = {1 << 20, 1 << 20, 1 << 20, 1};
  const struct call call = begin_call(FA_FLOAT32, precision, 1);
  const char *unit = tier_kernels(&call, &large)->unit;
  return unit ? unit : "float32";
}
