/* Portable intrinsics of AVX-512, SIMDe's and those that SIMDe lacks: with FA_EMULATE_AVX512 the AVX-512 kernels are
 * tested, at no useful speed, on a CPU without AVX-512. */
#ifndef FA_EMULATE_H
#define FA_EMULATE_H

#define SIMDE_ENABLE_NATIVE_ALIASES
#include <math.h>
#include <simde/x86/avx512.h>
#include <string.h>

#define _MM_FROUND_NO_EXC SIMDE_MM_FROUND_NO_EXC
typedef simde__mmask8 __mmask8;

/* a b + c, rounded once, by the CPU's own FMA.  SIMDe's own rounds twice where FMA is not in the baseline. */
#undef _mm512_fmadd_ps
#undef _mm512_fmadd_pd
#define FUSED(suffix, vector, lane, lanes, fused)                                                                      \
  __attribute__((target("fma"), noinline)) static void fuse_##suffix(const lane *a, const lane *b, lane *c) {          \
    for (int i = 0; i < lanes; i++) c[i] = fused(a[i], b[i], c[i]);                                                    \
  }                                                                                                                    \
  static inline vector _mm512_fmadd_##suffix(vector a, vector b, vector c) {                                           \
    fuse_##suffix((const lane *)&a, (const lane *)&b, (lane *)&c);                                                     \
    return c;                                                                                                          \
  }
FUSED(ps, __m512, float, 16, __builtin_fmaf)
FUSED(pd, __m512d, double, 8, __builtin_fma)
#undef FUSED

/* a 2^floor(b).  SIMDe's own flushes a denormal `a` to zero. */
#undef _mm512_scalef_ps
#undef _mm512_scalef_pd
static inline double scaled_lane(double a, double b) {
  return isnan(b) ? b : ldexp(a, (int)fmin(5000, fmax(-5000, floor(b))));
}
#define SCALE(suffix, vector, lane, lanes)                                                                             \
  static inline vector _mm512_scalef_##suffix(vector a, vector b) {                                                    \
    lane scaled[lanes], exponents[lanes];                                                                              \
    memcpy(scaled, &a, sizeof scaled);                                                                                 \
    memcpy(exponents, &b, sizeof exponents);                                                                           \
    for (int i = 0; i < lanes; i++) scaled[i] = (lane)scaled_lane(scaled[i], exponents[i]);                            \
    memcpy(&a, scaled, sizeof a);                                                                                      \
    return a;                                                                                                          \
  }
SCALE(ps, __m512, float, 16)
SCALE(pd, __m512d, double, 8)
#undef SCALE

/* Masked loads and stores.  SIMDe's own read and write the lanes that the mask leaves out as well. */
#undef _mm512_maskz_loadu_ps
#undef _mm512_maskz_loadu_pd
#undef _mm512_mask_storeu_ps
#undef _mm512_mask_storeu_pd
#define MASKED(suffix, vector, lane, lanes)                                                                            \
  static inline vector _mm512_maskz_loadu_##suffix(unsigned mask, const void *p) {                                     \
    lane to[lanes] = {0};                                                                                              \
    vector result;                                                                                                     \
    for (int i = 0; i < lanes; i++)                                                                                    \
      if (mask >> i & 1) to[i] = ((const lane *)p)[i];                                                                 \
    memcpy(&result, to, sizeof result);                                                                                \
    return result;                                                                                                     \
  }                                                                                                                    \
  static inline void _mm512_mask_storeu_##suffix(void *p, unsigned mask, vector a) {                                   \
    lane from[lanes];                                                                                                  \
    memcpy(from, &a, sizeof from);                                                                                     \
    for (int i = 0; i < lanes; i++)                                                                                    \
      if (mask >> i & 1) ((lane *)p)[i] = from[i];                                                                     \
  }
MASKED(ps, __m512, float, 16)
MASKED(pd, __m512d, double, 8)
#undef MASKED

/* Conversions of lanes from one type to another.  A float becomes an integer by rounding to nearest even. */
#define CONVERT(name, to_type, to_lane, from_type, from_lane, lanes, convert)                                          \
  static inline to_type name(from_type a) {                                                                            \
    from_lane from[lanes];                                                                                             \
    to_lane to[sizeof(to_type) / sizeof(to_lane)] = {0};                                                               \
    to_type result;                                                                                                    \
    memcpy(from, &a, sizeof from);                                                                                     \
    for (int i = 0; i < lanes; i++) to[i] = (to_lane)convert(from[i]);                                                 \
    memcpy(&result, to, sizeof result);                                                                                \
    return result;                                                                                                     \
  }
CONVERT(_mm512_cvtepi32_epi8, __m128i, int8_t, __m512i, int32_t, 16, )
CONVERT(_mm512_cvtepu8_epi32, __m512i, int32_t, __m128i, uint8_t, 16, )
CONVERT(_mm512_cvtepi64_epi8, __m128i, int8_t, __m512i, int64_t, 8, )
CONVERT(_mm512_cvtepi32_epi64, __m512i, int64_t, __m256i, int32_t, 8, )
CONVERT(_mm512_cvtpd_epi32, __m256i, int32_t, __m512d, double, 8, __builtin_nearbyint)
CONVERT(_mm512_cvtps_pd, __m512d, double, __m256, float, 8, )
CONVERT(_mm512_cvtpd_ps, __m256, float, __m512d, double, 8, )
#undef CONVERT

#endif
