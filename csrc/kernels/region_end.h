#if defined(REGION_AVX2) || (defined(REGION_AVX512) && !defined(FA_EMULATE_AVX512))
#if defined(__clang__)
#pragma clang attribute pop
#else
#pragma GCC pop_options
#endif
#endif
