/* Which ISA runs: the first of the list that this CPU supports, unless one is asked for. */
#include <stdatomic.h>

#include "fastact_abi.h"
#include "kernels.h"

#define DECLARE(isa)                                                                                                   \
  extern const struct kernels_f32 kernels_##isa##_f32;                                                                 \
  extern const struct kernels_f64 kernels_##isa##_f64;
#define ENTRY(isa) {#isa, isa##_supported, &kernels_##isa##_f32, &kernels_##isa##_f64}

DECLARE(scalar)
static int scalar_supported(void) { return 1; }

#if defined(__x86_64__)
DECLARE(avx2)
DECLARE(avx512)
static int avx2_supported(void) { return __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma"); }
#if defined(FA_EMULATE_AVX512)
static int avx512_supported(void) { return 1; }
#else
static int avx512_supported(void) {
  return avx2_supported() && __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bw") &&
         __builtin_cpu_supports("avx512dq") && __builtin_cpu_supports("avx512vl");
}
#endif
#endif

/* Best first. */
static const struct isa isas[] = {
#if defined(__x86_64__)
    ENTRY(avx512),
    ENTRY(avx2),
#endif
    ENTRY(scalar),
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
