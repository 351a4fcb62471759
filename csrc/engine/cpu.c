#include "engine/cpu.h"

#include <stddef.h>

#include "engine/os.h"

static const char *missing;
static os_once once = OS_ONCE;

#if defined(FA_EMULATE_AMX)
static const char *find_missing(void) { return NULL; }
#elif defined(__x86_64__) && defined(__linux__)
#include <cpuid.h>
#include <stdint.h>
#include <sys/syscall.h>
#include <unistd.h>

#define AMX_BF16 (1u << 22) /* a bit of CPUID's leaf 7, as is the next */
#define AMX_TILE (1u << 24)
#define OSXSAVE (1u << 27)    /* a bit of leaf 1 */
#define TILE_STATE (3u << 17) /* bits of XCR0 */
#define TILE_DATA 18
#define ARCH_REQ_XCOMP_PERM 0x1023

static const char *find_missing(void) {
  unsigned a, b, c, d;
  if (!__get_cpuid_count(7, 0, &a, &b, &c, &d) || (d & (AMX_BF16 | AMX_TILE)) != (AMX_BF16 | AMX_TILE))
    return "this CPU has none";
  if (!__builtin_cpu_supports("avx512f") || !__builtin_cpu_supports("avx512bf16"))
    return "this CPU has it without AVX-512, or without its bfloat16 instructions";
  if (!__get_cpuid(1, &a, &b, &c, &d) || !(c & OSXSAVE)) return "the operating system does not save its state";
  uint32_t low, high;
  __asm__("xgetbv" : "=a"(low), "=d"(high) : "c"(0));
  if ((low & TILE_STATE) != TILE_STATE) return "the operating system does not save its state";
  if (syscall(SYS_arch_prctl, ARCH_REQ_XCOMP_PERM, TILE_DATA))
    return "the operating system or a container refuses it (arch_prctl)";
  return NULL;
}
#else
static const char *find_missing(void) { return "only on Linux for x86-64"; }
#endif

static void ask(void) { missing = find_missing(); }

const char *why_no_amx(void) {
  os_call_once(&once, ask);
  return missing;
}
