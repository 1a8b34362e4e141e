import java.net.HttpURLConnection;
import java.net.URI;
import java.nio.charset.StandardCharsets;

/** Asks a server once for everything that tests ask for. */
final class Warmth {
    private static final String INSTANCE = "{\"instance\":{\"instanceId\":\"i\",\"hostName\":\"h\",\"app\":\"X\",\"ipAddr\":\"h\",\"status\":\"UP\","
        + "\"dataCenterInfo\":{\"@class\":\"com.netflix.appinfo.InstanceInfo$DefaultDataCenterInfo\",\"name\":\"MyOwn\"}}}";

    private Warmth() {}

    static void of(int port) {
        String base = "http://127.0.0.1:" + port + "/eureka/apps";
        ask("POST", base + "/X", INSTANCE);
        for (String path : new String[] {"", "/delta", "/X", "/X/i"}) ask("GET", base + path, null);
        ask("PUT", base + "/X/i?status=UP", null);
        ask("DELETE", base + "/X/i", null);
    }

    private static void ask(String method, String url, String body) {
        try {
            var connection = (HttpURLConnection) URI.create(url).toURL().openConnection();
            connection.setRequestMethod(method);
            connection.setRequestProperty("Accept", "application/json");
            if (body != null) {
                connection.setRequestProperty("Content-Type", "application/json");
                connection.setDoOutput(true);
                connection.getOutputStream().write(body.getBytes(StandardCharsets.UTF_8));
            }
            connection.getResponseCode();
        } catch (java.io.IOException error) {
            throw new java.io.UncheckedIOException(error);
        }
    }
}
