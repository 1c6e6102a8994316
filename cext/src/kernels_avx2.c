/* kernels_avx2.c - the kernels for x86-64 with AVX2, FMA and F16C, which are switched on here, whatever the flags. */
#include "kernels.h"

#if defined(__x86_64__) || defined(_M_X64)
#  include <immintrin.h>
#  if defined(__clang__)
#    pragma clang attribute push(__attribute__((target("avx2,fma,f16c"))), apply_to = function)
#  elif defined(__GNUC__)
#    pragma GCC push_options
#    pragma GCC target("avx2,fma,f16c")
#  endif
#  define ISA avx2
#  include "simd/avx2.h"
#  include "stamp.h"
#  if defined(__clang__)
#    pragma clang attribute pop
#  elif defined(__GNUC__)
#    pragma GCC pop_options
#  endif
#else
const softxent_isa softxent_kernels_avx2 = {"avx2", NULL, NULL};
#endif
