/* test_simd_neon.c - the tests of the vector layer for 64-bit Arm. */
#include "test_simd_main.h"

#if defined(__aarch64__) || defined(_M_ARM64)
#  include "simd/neon.h"
#  include "test_simd.h"
#else
#  define test_simd NULL
#endif

int main(void) { return test_simd_main("neon", test_simd); }
