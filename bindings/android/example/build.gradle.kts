plugins {
    id("com.android.application")
    id("org.jetbrains.kotlin.android")
}

android {
    namespace = "linkedout.edge.example"
    compileSdk = 35

    defaultConfig {
        applicationId = "linkedout.edge.example"
        minSdk = 26
        targetSdk = 35
        versionCode = 1
        versionName = "0.1.0"
    }
    // The bundle: assets/base/…, copied to a folder at the first start.
    sourceSets["main"].assets.srcDir(rootDir.resolve("../../linkedout_edge/bundles"))
    packaging {
        jniLibs.excludes += "**/libonnxruntime4j_jni.so" // of ONNX Runtime's own Java interface, which nobody calls
    }
    compileOptions {
        sourceCompatibility = JavaVersion.VERSION_11
        targetCompatibility = JavaVersion.VERSION_11
    }
    kotlinOptions {
        jvmTarget = "11"
    }
}

dependencies {
    implementation(project(":linkedout-edge"))
}
