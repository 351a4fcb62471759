/* The type that a body is written for: include with REAL_BITS defined as 32 or 64, as often as needed. */
#undef real
#undef REAL
#if REAL_BITS == 32
#define real float
#define REAL(name) name##_f32
#else
#define real double
#define REAL(name) name##_f64
#endif
