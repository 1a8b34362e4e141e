import java.nio.file.Files;
import java.nio.file.Path;
import org.springframework.beans.factory.annotation.Value;
import org.springframework.boot.SpringApplication;
import org.springframework.boot.autoconfigure.EnableAutoConfiguration;
import org.springframework.boot.autoconfigure.condition.ConditionalOnProperty;
import org.springframework.cloud.netflix.eureka.server.EnableEurekaServer;
import org.springframework.context.annotation.Bean;
import org.springframework.context.annotation.Configuration;
import org.springframework.http.HttpMethod;
import org.springframework.security.config.Customizer;
import org.springframework.security.config.annotation.web.builders.HttpSecurity;
import org.springframework.security.core.userdetails.User;
import org.springframework.security.core.userdetails.UserDetailsService;
import org.springframework.security.core.userdetails.UsernameNotFoundException;
import org.springframework.security.web.SecurityFilterChain;

@Configuration(proxyBeanMethods = false)
@EnableAutoConfiguration
@EnableEurekaServer
public class EurekaServer {
    public static void main(String[] arguments) {
        var server = SpringApplication.run(EurekaServer.class, arguments);
        // So that the archive of classes has those that only a request takes.
        if (server.getEnvironment().getProperty("testbed.once") != null) {
            int port = Integer.parseInt(server.getEnvironment().getProperty("local.server.port"));
            Warmth.of(port);
            System.exit(SpringApplication.exit(server));
        }
    }

    /** Nobody is asked who they are. */
    @Configuration(proxyBeanMethods = false)
    @ConditionalOnProperty(name = "testbed.users", matchIfMissing = true, havingValue = "none")
    static class Open {
        @Bean
        SecurityFilterChain rules(HttpSecurity http) throws Exception {
            return http.csrf(csrf -> csrf.disable()).build();
        }
    }

    /**
     * One user, read anew for every request from the file that testbed.users names: name, password, and what is
     * allowed, READ and WRITE, with spaces between.
     */
    @Configuration(proxyBeanMethods = false)
    @ConditionalOnProperty(name = "testbed.users")
    static class Secured {
        @Bean
        UserDetailsService users(@Value("${testbed.users}") Path file) {
            return name -> {
                try {
                    String[] words = Files.readString(file).strip().split(" ");
                    if (!words[0].equals(name)) throw new UsernameNotFoundException(name);
                    String[] roles = java.util.Arrays.copyOfRange(words, 2, words.length);
                    return User.withUsername(name).password("{noop}" + words[1]).roles(roles).build();
                } catch (java.io.IOException error) {
                    throw new UsernameNotFoundException(name, error);
                }
            };
        }

        @Bean
        SecurityFilterChain rules(HttpSecurity http) throws Exception {
            return http.csrf(csrf -> csrf.disable())
                .authorizeHttpRequests(rules -> rules
                    .requestMatchers(HttpMethod.GET).hasRole("READ")
                    .anyRequest().hasRole("WRITE"))
                .httpBasic(Customizer.withDefaults())
                .build();
        }
    }
}
