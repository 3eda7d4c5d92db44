// The Java sources of bindings/java, and its native library for Android.
plugins {
    id("com.android.library")
}

// Headers of ONNX Runtime and nlohmann-json: bindings/cpp/tools/fetch.sh build/bindings/dependencies
val headers = rootDir.resolve("../../build/bindings/dependencies")
val sources = rootDir.resolve("../java")

android {
    namespace = "linkedout.edge"
    compileSdk = 35
    ndkVersion = "27.2.12479018"

    defaultConfig {
        minSdk = 26 // java.time
        consumerProguardFiles("consumer-rules.pro")
        ndk {
            abiFilters += listOf("arm64-v8a", "x86_64")
        }
        externalNativeBuild {
            cmake {
                arguments += listOf("-DLINKEDOUT_DEPENDENCIES=$headers", "-DANDROID_STL=c++_static")
                targets += "linkedout_edge_jni"
            }
        }
    }
    externalNativeBuild {
        cmake {
            path = sources.resolve("CMakeLists.txt") // sets the linker's flag for 16 KB pages
            version = "3.22.1"
        }
    }
    sourceSets["main"].java.srcDir(sources.resolve("src/main/java"))
    compileOptions {
        sourceCompatibility = JavaVersion.VERSION_11
        targetCompatibility = JavaVersion.VERSION_11
    }
}

dependencies {
    compileOnly("org.jetbrains:annotations:23.0.0")
    // Only its libonnxruntime.so is used. Up to 1.28 it sends nothing by itself; README.md says what later ones need.
    implementation("com.microsoft.onnxruntime:onnxruntime-android:1.28.0")
}
