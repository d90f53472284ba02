#include "simd/neon.h"

#include "kernels/make_products.h"

namespace openwork {

extern const ProductTable kNeonProducts = make_products<Neon>();

}  // namespace openwork
