# Inlines our headers into a kernel source that is about to be embedded: cmake -DFILE=x.metal -P tcq-embed.cmake
# Every header is included once; a header comes before those that it includes.

set(dir ${CMAKE_CURRENT_LIST_DIR})
file(READ "${FILE}" source)
foreach(header kernels/tcq_mul_mv.h kernels/tcq_mul_mm.h kernels/tcq_copy.h kernels/tcq.h
        ../ggml-tcq-tables.h ../ggml-tcq-layout.h)
    get_filename_component(name ${header} NAME)
    file(READ "${dir}/${header}" content)
    string(REPLACE "#include \"${name}\"" "${content}" source "${source}")
endforeach()
file(WRITE "${FILE}" "${source}")
