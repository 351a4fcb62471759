/* The public ABI with what it needs: fastact.h itself has no preprocessor lines, as cffi parses it. */
#ifndef FA_ABI_H
#define FA_ABI_H
#include <stdint.h>

#include "fastact.h"
#endif
