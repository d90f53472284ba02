#include "simd/avx2.h"

#include "kernels/make_products.h"

namespace openwork {

extern const ProductTable kAvx2Products = make_products<Avx2>();

}  // namespace openwork
