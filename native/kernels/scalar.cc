#include "simd/scalar.h"

#include "kernels/make_products.h"

namespace openwork {

extern const ProductTable kScalarProducts = make_products<Scalar>();

}  // namespace openwork
