/* Closes the target region that region_begin.h opened. */
#if defined(TARGET)
#if defined(__clang__)
#pragma clang attribute pop
#else
#pragma GCC pop_options
#endif
#endif
