/* Opens the target region of one ISA: include with exactly one of REGION_AVX2, REGION_AVX512 defined, or
 * none for the baseline, after every system header.  region_end.h closes it.  A function in a region may use the
 * ISA; nothing outside is compiled for it, so that the library loads on any CPU of the architecture. */
#if defined(REGION_AVX2)
#if defined(__clang__)
#pragma clang attribute push(__attribute__((target("avx2,fma"))), apply_to = function)
#else
#pragma GCC push_options
#pragma GCC target("avx2,fma")
#endif
#elif defined(REGION_AVX512) && !defined(FA_EMULATE_AVX512)
#if defined(__clang__)
#pragma clang attribute push(__attribute__((target("avx512f,avx512bw,avx512dq,avx512vl,avx2,fma"))),                   \
                             apply_to = function)
#else
#pragma GCC push_options
#pragma GCC target("avx512f,avx512bw,avx512dq,avx512vl,avx2,fma")
#endif
#endif
