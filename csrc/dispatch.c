/* Which ISA runs: the first of the list that this CPU supports, unless one is asked for. */
#include <stdatomic.h>

#include "amx.h"
#include "fastact_abi.h"
#include "kernels.h"

#define DECLARE(isa)                                                                                                   \
  extern const struct kernels_f32 kernels_##isa##_f32;                                                                 \
  extern const struct kernels_f64 kernels_##isa##_f64;
#define ENTRY(isa, tier) {#isa, isa##_supported, &kernels_##isa##_f32, &kernels_##isa##_f64, tier}

/* What "highest" runs on AMX tiles: to split weights and rows into three parts has to be shared by many rows and units,
 * and the lanes have to be filled.  On (64, 288, 96, 3) float32 took 73 us and three parts 75, on (96, 288, 96, 3) 110
 * and 94, (100, 784, 240, 5) 1188 and 1078, (256, 128, 128, 2) 121 and 94, but (97, 131, 57, 3) 39 and 49, (1024, 64,
 * 64, 1) 65 and 69, (20000, 16, 100, 1) 1067 and 1378, (2048, 96, 64, 1) 167 and 168, (4096, 1024, 16, 1) 1118 and
 * 1747, (200, 300, 2, 256) 389 and 833 (Xeon, family 6 model 207). */
#define MIN_HIGHEST_ROWS 96
#define MIN_HIGHEST_COLUMNS 48
#define MIN_HIGHEST_UNITS 96
#define MIN_HIGHEST_DEPTH 32
#define MIN_HIGHEST_TERMS 6000000

DECLARE(scalar)
static int scalar_supported(void) { return 1; }

#if defined(__x86_64__)
DECLARE(avx2)
DECLARE(avx512)
#define kernels_amx_f32 kernels_avx512_f32 /* but for its tiers */
#define kernels_amx_f64 kernels_avx512_f64
extern const struct kernels_f32 kernels_avx512_bf16, kernels_amx_1, kernels_amx_2, kernels_amx_3;

static int avx2_supported(void) { return __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma"); }
#if defined(FA_EMULATE_AVX512)
static int avx512_supported(void) { return 1; }
#else
static int avx512_supported(void) {
  return avx2_supported() && __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bw") &&
         __builtin_cpu_supports("avx512dq") && __builtin_cpu_supports("avx512vl");
}
#endif
#if defined(FA_EMULATE_AVX512) || defined(FA_EMULATE_AMX)
static int amx_supported(void) { return avx512_supported(); }
#else
static int amx_supported(void) { return avx512_supported() && !why_no_amx(); }
#endif

static const struct kernels_f32 *avx512_tier(int precision, const struct product_sizes *sizes) {
  (void)sizes;
#if !defined(FA_EMULATE_AVX512)
  if (!__builtin_cpu_supports("avx512bf16")) return NULL;
#endif
  return precision == FA_MEDIUM ? &kernels_avx512_bf16 : NULL;
}

static const struct kernels_f32 *amx_tier(int precision, const struct product_sizes *s) {
  if (precision == FA_MEDIUM) return &kernels_amx_1;
  if (precision == FA_HIGH) return &kernels_amx_2;
  int64_t units = s->columns * s->pieces;
  return s->rows >= MIN_HIGHEST_ROWS && s->depth >= MIN_HIGHEST_DEPTH && s->columns >= MIN_HIGHEST_COLUMNS &&
                 units >= MIN_HIGHEST_UNITS && s->rows * s->depth * units >= MIN_HIGHEST_TERMS
             ? &kernels_amx_3
             : NULL;
}
#endif

/* Best first. */
static const struct isa isas[] = {
#if defined(__x86_64__)
    ENTRY(amx, amx_tier),
    ENTRY(avx512, avx512_tier),
    ENTRY(avx2, NULL),
#endif
    ENTRY(scalar, NULL),
};
enum { ISAS = sizeof isas / sizeof *isas };

static const struct isa *_Atomic active;

const struct isa *isa_active(void) {
  const struct isa *isa = atomic_load_explicit(&active, memory_order_relaxed);
  if (isa) return isa;
  isa = isas;
  while (!isa->supported()) isa++;
  atomic_store_explicit(&active, isa, memory_order_relaxed);
  return isa;
}

const struct kernels_f32 *isa_tier_f32(const struct isa *isa, int precision, const struct product_sizes *sizes) {
  const struct kernels_f32 *tier = isa->tier ? isa->tier(precision, sizes) : NULL;
  return tier ? tier : isa->kernels_f32;
}

const struct kernels_f64 *isa_tier_f64(const struct isa *isa, int precision, const struct product_sizes *sizes) {
  (void)precision, (void)sizes; /* float64 has no tiers */
  return isa->kernels_f64;
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
  const char *unit = isa_tier_f32(isa_active(), precision, &large)->unit;
  return unit ? unit : "float32";
}
