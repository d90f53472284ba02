#include "simd/avxvnni.h"

#include "kernels/make_products.h"

namespace openwork {

extern const ProductTable kAvxVnniProducts = make_products<AvxVnni>();

}  // namespace openwork
