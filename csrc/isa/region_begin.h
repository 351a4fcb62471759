/* Opens the target region of one ISA: the functions inside may use its instructions, and nothing outside is compiled
 * for them, so that the library loads on any CPU of the architecture.
 *
 * Include it with REAL_BITS defined, and one of REGION_AVX2, REGION_AVX512, REGION_BF16, REGION_AMX and
 * REGION_NEON_BF16; without any of the five the region is the baseline.  region_end.h closes the region.  System
 * headers have to be outside, so those of all kernels are included here, and so are the intrinsics. */
#include <float.h>
#include <math.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#include "kernels/real.h"
#include "kernels/vtable.h"

#define AVX512_TARGET "avx512f,avx512bw,avx512dq,avx512vl,avx2,fma"
#if defined(REGION_AVX2)
#define TARGET "avx2,fma"
#elif defined(FA_EMULATE_AVX512) /* portable intrinsics: the baseline */
#elif defined(REGION_AVX512) || (defined(REGION_AMX) && defined(FA_EMULATE_AMX))
#define TARGET AVX512_TARGET
#elif defined(REGION_BF16)
#define TARGET AVX512_TARGET ",avx512bf16"
#elif defined(REGION_AMX)
#define TARGET AVX512_TARGET ",avx512bf16,amx-tile,amx-bf16"
#elif defined(REGION_NEON_BF16)
#define TARGET "arch=armv8.2-a+bf16"
#endif

#if defined(__AARCH64EL__)
#include <arm_neon.h>
#elif defined(TARGET)
#include <immintrin.h>
#elif defined(REGION_AVX512) || defined(REGION_BF16) || defined(REGION_AMX)
#include "isa/avx512/emulate.h"
#endif

/* For a pointer that several loads at constant distances follow: GCC for AArch64 otherwise computes their addresses one
 * by one, where instructions take a distance and load two registers. */
#if defined(__AARCH64EL__)
#define KEEP_POINTER(p) __asm__ volatile("" : "+r"(p))
#else
#define KEEP_POINTER(p) ((void)(p))
#endif

#define ALWAYS_INLINE inline __attribute__((always_inline))
#if defined(__clang__)
#define UNROLL _Pragma("clang loop unroll(full)")
#define SHUFFLE(vector, a, b, ...) __builtin_shufflevector(a, b, __VA_ARGS__)
#else
#define UNROLL _Pragma("GCC unroll 64")
#define SHUFFLE(vector, a, b, ...) __builtin_shuffle(a, b, (vector){__VA_ARGS__}) /* GCC 11 has no shufflevector */
#endif

#if defined(TARGET)
#define PRAGMA(text) _Pragma(#text)
#if defined(__clang__)
#define OPEN_REGION(names) PRAGMA(clang attribute push(__attribute__((target(names))), apply_to = function))
#else
#define OPEN_REGION(names) _Pragma("GCC push_options") PRAGMA(GCC target(names))
#endif
OPEN_REGION(TARGET)
#endif
