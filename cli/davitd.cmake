add_library(cli_davitd STATIC davitd_app.cc)
target_include_directories(cli_davitd PUBLIC ${CMAKE_SOURCE_DIR})
target_link_libraries(cli_davitd PUBLIC common_base common_config daemon_core
  PRIVATE davit_warnings)
davit_binary(davitd SRCS davitd_main.cc DEPS cli_davitd)
