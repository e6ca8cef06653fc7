/* ARMv8.2-A with the dot product instructions: Neoverse N1 (Graviton 2, Ampere Altra), Cortex-A76 (Raspberry Pi 5) and later.
 *
 * Instructions for 256 multiply-adds (16 SDOT), by gcc 12: Q4_K 89 for one token, 38 for 64; Q6_K 117 and 40. No spills in the inner loops. */
#include "kernels/levels.h"
#include "kernels/panel.h"
#include "kernels/arm/lanes_neon.h"

#include "kernels/lanes.h"

#include "kernels/arm/sdot.h"

#include "kernels/arm/matmul.h"

const struct kernels kernels_dotprod = {.level = "dotprod", ARM_KERNELS};
