#include "simd/avx512vnni_novbmi.h"

#include "kernels/make_products.h"

namespace openwork {

extern const ProductTable kAvx512VnniNoVbmiProducts = make_products<Avx512VnniNoVbmi>();

}  // namespace openwork
