/* test_simd_scalar.c - the tests of the vector layer in plain C. */
#include "test_simd_main.h"

#include "kernels.h"

BEGIN_SSE2
#include "simd/scalar.h"

#include "test_simd.h"
END_SSE2

int main(void) { return test_simd_main("scalar", test_simd); }
