/* kernels_scalar.c - the kernels in plain C, for any processor. */
#define ISA scalar
#include "simd/scalar.h"

#include "stamp.h"
