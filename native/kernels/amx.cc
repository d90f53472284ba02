#include "simd/amx.h"

#include "kernels/make_tiles.h"

namespace openwork {

extern const KernelOverlay kAmxOverlay = make_tiles<Amx>();

}  // namespace openwork
