/* The C ABI with the types that its text uses. cffi has no preprocessor, so fastact.h and numpy.h include nothing. */
#ifndef FA_ABI_H
#define FA_ABI_H
#include <stdint.h>

#include "api/fastact.h"
#include "api/numpy.h"
#endif
