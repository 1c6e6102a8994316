/* kernels_neon.c - the kernels for 64-bit Arm, whose Advanced SIMD is always there. */
#include "kernels.h"

#if defined(__aarch64__) || defined(_M_ARM64)
#  define ISA neon
#  include "simd/neon.h"
#  include "stamp.h"
#else
const softxent_isa softxent_kernels_neon = {"neon", NULL, NULL};
#endif
