/* The context of a kernel body that an editor, clangd or ctags opens on its own: the baseline's vectors of floats.
 * No translation unit of the library includes this file: there REAL_BITS is defined first. */
#ifndef EDITOR_BITS
#define EDITOR_BITS 32
#endif
#define REAL_BITS EDITOR_BITS
#include "isa/region_begin.h"
#include "isa/scalar/vec.h"
