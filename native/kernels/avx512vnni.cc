#include "simd/avx512vnni.h"

#include "kernels/make_products.h"

namespace openwork {

extern const ProductTable kAvx512VnniProducts = make_products<Avx512Vnni>();

}  // namespace openwork
