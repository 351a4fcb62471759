/* The public ABI with what it needs: its texts have no preprocessor lines, as cffi parses them. */
#ifndef FA_ABI_H
#define FA_ABI_H
#include <stdint.h>

#include "fastact.h"
#include "arrays.h"
#endif
