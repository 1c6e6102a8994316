/* test_simd_avx2.c - the tests of the vector layer for AVX2 with FMA and F16C. The target is switched on here. */
#include "test_simd_main.h"

#if defined(__x86_64__) || defined(_M_X64)
#  include <immintrin.h>
#  if defined(__clang__)
#    pragma clang attribute push(__attribute__((target("avx2,fma,f16c"))), apply_to = function)
#  elif defined(__GNUC__)
#    pragma GCC push_options
#    pragma GCC target("avx2,fma,f16c")
#  endif
#  include "simd/avx2.h"
#  include "test_simd.h"
#  if defined(__clang__)
#    pragma clang attribute pop
#  elif defined(__GNUC__)
#    pragma GCC pop_options
#  endif
#else
#  define test_simd NULL
#endif

int main(void) { return test_simd_main("avx2", test_simd); }
