/* `real`, the type of an element: float or double, as REAL_BITS is 32 or 64.  Include this after each change of
 * REAL_BITS. */
#undef real
#undef REAL
#undef REAL_MIN
#undef REAL_MAX
#undef REAL_MAX_EXPONENT
#if REAL_BITS == 32
#define real float
#define REAL(name) name##_f32
#define REAL_MIN FLT_MIN
#define REAL_MAX FLT_MAX
#define REAL_MAX_EXPONENT FLT_MAX_EXP
#else
#define real double
#define REAL(name) name##_f64
#define REAL_MIN DBL_MIN
#define REAL_MAX DBL_MAX
#define REAL_MAX_EXPONENT DBL_MAX_EXP
#endif
