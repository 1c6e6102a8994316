/* dispatch.c - chooses the instruction set at run time.
 *
 * The processor must have the instructions (CPUID), and the operating system must save their registers (XCR0). If the
 * operating system does not save them, it does not restore them, and the first wide instruction faults. Nothing is
 * cached: the caller keeps the table that it was given. This file does not depend on what the kernels do. */
#include "dispatch.h"

#include <stdlib.h>
#include <string.h>

#if defined(__x86_64__) || defined(__i386__) || defined(_M_X64) || defined(_M_IX86)
#  define ON_X86 1
#  ifdef _MSC_VER
#    include <immintrin.h>
#    include <intrin.h>
#  else
#    include <cpuid.h>
#  endif
#else
#  define ON_X86 0
#endif

#if ON_X86

typedef struct {
    unsigned eax, ebx, ecx, edx;
} cpuid_answer;

static cpuid_answer cpuid(unsigned leaf)
{
    cpuid_answer a = {0, 0, 0, 0};
#  ifdef _MSC_VER
    int regs[4];
    __cpuid(regs, 0);
    if ((unsigned)regs[0] < leaf) return a;
    __cpuidex(regs, (int)leaf, 0);
    a.eax = (unsigned)regs[0], a.ebx = (unsigned)regs[1], a.ecx = (unsigned)regs[2], a.edx = (unsigned)regs[3];
#  else
    __get_cpuid_count(leaf, 0, &a.eax, &a.ebx, &a.ecx, &a.edx); /* zeros if there is no such leaf */
#  endif
    return a;
}

/* The register sets that the operating system saves. 0 if XGETBV itself is not enabled. */
static unsigned saved_registers(void)
{
    const unsigned osxsave = 1u << 27;
    if (!(cpuid(1).ecx & osxsave)) return 0;
#  ifdef _MSC_VER
    return (unsigned)_xgetbv(0);
#  else
    unsigned low, high;
    __asm__ volatile("xgetbv" : "=a"(low), "=d"(high) : "c"(0));
    return low;
#  endif
}

static int all(unsigned word, unsigned bits) { return (word & bits) == bits; }

static int can_run_avx2(void)
{
    const unsigned fma = 1u << 12, avx = 1u << 28, f16c = 1u << 29, avx2 = 1u << 5, xmm_ymm = 0x6;
    return all(cpuid(1).ecx, fma | avx | f16c) && all(cpuid(7).ebx, avx2) && all(saved_registers(), xmm_ymm);
}

static int can_run_avx512(void)
{
    const unsigned f = 1u << 16, dq = 1u << 17, bw = 1u << 30, vl = 1u << 31, opmask_zmm = 0xe0;
    return can_run_avx2() && all(cpuid(7).ebx, f | dq | bw | vl) && all(saved_registers(), opmask_zmm);
}

#else

static int can_run_avx2(void) { return 0; }
static int can_run_avx512(void) { return 0; }

#endif

/* Every 64-bit Arm has NEON; elsewhere its table is empty. */
static int can_run_neon(void) { return 1; }
static int can_run_scalar(void) { return 1; }

/* The order is that of preference. The last one runs everywhere. */
#define CANDIDATE(isa) {&softxent_kernels_##isa, can_run_##isa},
static const struct {
    const softxent_isa *isa;
    int (*can_run)(void);
} candidates[] = {SOFTXENT_ISAS(CANDIDATE)};

enum { N_CANDIDATES = sizeof candidates / sizeof candidates[0] };

static int usable(int c) { return candidates[c].isa->run_f32 && candidates[c].can_run(); }

const softxent_isa *softxent_dispatch_find(const char *name)
{
    for (int c = 0; c < N_CANDIDATES; ++c)
        if (strcmp(candidates[c].isa->name, name) == 0) return usable(c) ? candidates[c].isa : NULL;
    return NULL;
}

const char *softxent_isa_usable(int i)
{
    int before = 0;
    for (int c = 0; c < N_CANDIDATES; ++c)
        if (usable(c) && before++ == i) return candidates[c].isa->name;
    return NULL;
}

int softxent_isa_select(const char *name, const softxent_isa **isa)
{
    if (!isa) return SOFTXENT_BAD_ARGUMENT;
    if (!name) name = getenv("SOFTXENT_ISA");
    if (!name || !*name) name = softxent_isa_usable(0);
    const softxent_isa *found = softxent_dispatch_find(name);
    if (!found) return SOFTXENT_BAD_ISA;
    *isa = found;
    return SOFTXENT_OK;
}

const char *softxent_isa_name(const softxent_isa *isa) { return isa ? isa->name : NULL; }
