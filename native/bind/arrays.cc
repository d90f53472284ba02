#include "bind/arrays.h"

namespace openwork::bind {

nb::object to_numpy(AlignedBuffer buffer, DType dtype, const std::vector<int64_t>& shape) {
  const std::vector<size_t> sizes(shape.begin(), shape.end());
  std::byte* data = buffer.release();
  const nb::capsule owner(data, [](void* p) noexcept { AlignedBuffer::free_aligned(p); });
  const auto array = [&]<class T>(T*) {
    return nb::cast(nb::ndarray<nb::numpy, T, nb::c_contig>(data, sizes.size(), sizes.data(), owner));
  };
  switch (dtype) {
    case DType::u8: return array(static_cast<uint8_t*>(nullptr));
    case DType::i64: return array(static_cast<int64_t*>(nullptr));
    case DType::f32: break;
  }
  return array(static_cast<float*>(nullptr));
}

}  // namespace openwork::bind
