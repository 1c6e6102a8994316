/* test_simd_avx512.c - the tests of the vector layer for AVX-512 F, DQ, BW and VL. The target is switched on here. */
#include "test_simd_main.h"

#if defined(__x86_64__) || defined(_M_X64)
#  include <immintrin.h>
#  if defined(__clang__)
#    pragma clang attribute push(__attribute__((target("avx512f,avx512dq,avx512bw,avx512vl,fma"))), apply_to = function)
#  elif defined(__GNUC__)
#    pragma GCC push_options
#    pragma GCC target("avx512f,avx512dq,avx512bw,avx512vl,fma")
#  endif
#  include "simd/avx512.h"
#  include "test_simd.h"
#  if defined(__clang__)
#    pragma clang attribute pop
#  elif defined(__GNUC__)
#    pragma GCC pop_options
#  endif
#else
#  define test_simd NULL
#endif

int main(void) { return test_simd_main("avx512", test_simd); }
