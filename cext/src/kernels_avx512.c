/* kernels_avx512.c - the kernels for x86-64 with AVX-512 F, DQ, BW and VL. The target is switched on here. */
#include "kernels.h"

#if defined(__x86_64__) || defined(_M_X64)
#  include <immintrin.h>
#  if defined(__clang__)
#    pragma clang attribute push(__attribute__((target("avx512f,avx512dq,avx512bw,avx512vl,fma"))), apply_to = function)
#  elif defined(__GNUC__)
#    pragma GCC push_options
#    pragma GCC target("avx512f,avx512dq,avx512bw,avx512vl,fma")
#  endif
#  define ISA avx512
#  include "simd/avx512.h"
#  include "stamp.h"
#  if defined(__clang__)
#    pragma clang attribute pop
#  elif defined(__GNUC__)
#    pragma GCC pop_options
#  endif
#else
const softxent_isa softxent_kernels_avx512 = {"avx512", NULL, NULL};
#endif
