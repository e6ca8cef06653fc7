/* ARMv8.2-A with the dot product instructions: Neoverse N1 (Graviton 2, Ampere Altra), Cortex-A76 (Raspberry Pi 5) and later. */
#include "kernels/levels.h"
#include "kernels/panel.h"
#include "kernels/arm/lanes_neon.h"

#include "kernels/lanes.h"

#include "kernels/arm/sdot.h"

#include "kernels/arm/matmul.h"

const struct kernels kernels_dotprod = {.level = "dotprod", ARM_KERNELS};
