#include "engine/cpu.h"

#include <stddef.h>

#include "engine/os.h"

#if defined(__x86_64__)
#include <cpuid.h>

/* Bits of CPUID, by leaf and register. */
#define LEAF_1_ECX_AVX2 (1u << 12 | 1u << 28) /* FMA, AVX */
#define LEAF_1_ECX_OSXSAVE (1u << 27)
#define LEAF_7_EBX_AVX2 (1u << 5)
#define LEAF_7_EBX_AVX512 (1u << 16 | 1u << 17 | 1u << 30 | 1u << 31) /* F, DQ, BW, VL */
#define LEAF_7_EDX_AMX (1u << 22 | 1u << 24)                          /* BF16, TILE */
#define LEAF_7_1_EAX_AVX512_BF16 (1u << 5)
/* Bits of XCR0: the state that the operating system saves. */
#define STATE_AVX (3u << 1)
#define STATE_AVX512 (7u << 5 | STATE_AVX)
#define STATE_TILE (3u << 17)

enum cpuid_register { EAX, EBX, ECX, EDX };

static int has(unsigned leaf, unsigned subleaf, enum cpuid_register name, unsigned bits) {
  unsigned r[4];
  return __get_cpuid_count(leaf, subleaf, &r[EAX], &r[EBX], &r[ECX], &r[EDX]) && (r[name] & bits) == bits;
}

static int saves(unsigned state) {
  if (!has(1, 0, ECX, LEAF_1_ECX_OSXSAVE)) return 0;
  unsigned low, high;
  __asm__("xgetbv" : "=a"(low), "=d"(high) : "c"(0));
  return (low & state) == state;
}

int cpu_has_avx2(void) {
  return has(1, 0, ECX, LEAF_1_ECX_AVX2) && has(7, 0, EBX, LEAF_7_EBX_AVX2) && saves(STATE_AVX);
}
int cpu_has_avx512(void) { return cpu_has_avx2() && has(7, 0, EBX, LEAF_7_EBX_AVX512) && saves(STATE_AVX512); }
int cpu_has_avx512_bf16(void) { return cpu_has_avx512() && has(7, 1, EAX, LEAF_7_1_EAX_AVX512_BF16); }
#endif

static const char *missing;
static os_once once = OS_ONCE;

#if defined(FA_EMULATE_AMX)
static const char *find_missing(void) { return NULL; }
#elif defined(__x86_64__) && defined(__linux__)
#include <sys/syscall.h>
#include <unistd.h>

#define TILE_DATA 18
#define ARCH_REQ_XCOMP_PERM 0x1023

static const char *find_missing(void) {
  if (!has(7, 0, EDX, LEAF_7_EDX_AMX)) return "this CPU has none";
  if (!cpu_has_avx512_bf16()) return "this CPU has it without AVX-512, or without its bfloat16 instructions";
  if (!saves(STATE_TILE)) return "the operating system does not save its state";
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

#if defined(__aarch64__)
#if defined(__linux__)
#include <sys/auxv.h>

#define HWCAP2_BF16_BIT (1ul << 14) /* HWCAP2_BF16, which older headers lack */

int has_neon_bf16(void) { return (getauxval(AT_HWCAP2) & HWCAP2_BF16_BIT) != 0; }
#else
int has_neon_bf16(void) { return 0; }
#endif
#endif
