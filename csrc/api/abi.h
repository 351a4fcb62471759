/* The C ABI with the types that its text takes for granted: cffi parses fastact.h and numpy.h without a preprocessor.
 */
#ifndef FA_ABI_H
#define FA_ABI_H
#include <stdint.h>

#include "api/fastact.h"
#include "api/numpy.h"
#endif
