#include "simd/scalar_tiles.h"

#include "kernels/make_tiles.h"

namespace openwork {

extern const KernelOverlay kAmxEmulatedOverlay = make_tiles<AmxEmulated>();

}  // namespace openwork
