/* kernels_scalar.c - the kernels in plain C, for any processor; of 32-bit x86, those with SSE2. */
#include "kernels.h"

BEGIN_SSE2
#define ISA scalar
#include "simd/scalar.h"

#include "stamp.h"
END_SSE2
