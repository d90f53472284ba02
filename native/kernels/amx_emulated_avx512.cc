#include "simd/amx.h"

#include "kernels/make_tiles.h"

namespace openwork {

extern const KernelOverlay kAmxEmulatedAvx512Overlay = make_tiles<AmxEmulatedAvx512>();

}  // namespace openwork
